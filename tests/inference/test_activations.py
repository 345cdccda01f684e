"""`POST /v1/activations` against sae-lens on Hugging Face's activations, and text by text."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook, parse_hook
from interpedia_shared.contracts.live.activations import ActivationsOut
from tests.support.live_world import LiveWorld

TEXTS = [
    "the red cat is in the green house by the river",
    "music",
    "you have more time than all the people of this city, and water and light as well",
    "the dog was there",
]
WITH_WEIGHTS = ["0-res-topk", "1-res-std", "2-res-jump", "2-tc"]
ALL_KINDS = [*WITH_WEIGHTS, "3-mlp-id"]


async def ask(client: httpx.AsyncClient, **body: Any) -> ActivationsOut:
    answer = await client.post("/v1/activations", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return ActivationsOut.model_validate_json(answer.content)


async def refusal(client: httpx.AsyncClient, status: int, slug: str, **body: Any) -> dict[str, Any]:
    # httpx refuses to write NaN; other clients do not
    content, headers = json.dumps({"model": "tiny", **body}), {"content-type": "application/json"}
    answer = await client.post("/v1/activations", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(slug)
    return answer.json()


def sae_lens_class() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens.SAE


def at(slug: str, *indices: int) -> list[dict[str, Any]]:
    return [{"sae": slug, "feature": index} for index in indices]


def stream(world: LiveWorld, text: str, hook: Hook, *, prepend_bos: bool = True) -> torch.Tensor:
    """[pos, d] of this text alone, captured by a hook of Hugging Face's own model."""
    ids = [*([world.model.bos_id] if prepend_bos else []), *world.model.tokenize(text)]
    if hook.kind != "resid_post":
        return capture(world.model, torch.tensor([ids]), [hook])[hook][0]
    with torch.no_grad():
        states = world.model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return states[hook.layer + 1][0]


def numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


@pytest.mark.parametrize("slug", WITH_WEIGHTS)
async def test_features_are_those_of_sae_lens(
    client: httpx.AsyncClient, world: LiveWorld, live_data_dir: Path, tmp_path: Path, slug: str
) -> None:
    info = world.infos[slug]
    folder = live_data_dir / "sae-files" / slug
    (tmp_path / "cfg.json").write_bytes((folder / "cfg.json").read_bytes())
    blobs = live_data_dir / "blobs" / (info.weights_sha256 or "")[:2] / (info.weights_sha256 or "")
    (tmp_path / "sae_weights.safetensors").write_bytes(blobs.read_bytes())
    peer = sae_lens_class().load_from_disk(str(tmp_path), device="cpu")
    with torch.no_grad():
        expected = peer.encode(stream(world, TEXTS[0], info.hook)).numpy()
    some = [0, 5, 17, 40, 95]
    answer = await ask(client, texts=[TEXTS[0]], features=at(slug, *some), saes=[slug], ignore_bos=False)
    (result,) = answer.results
    for index, found in zip(some, result.features, strict=True):
        assert found.ref == f"tiny/{slug}/{index}"
        np.testing.assert_allclose(numbers(found.values), expected[:, index], atol=2e-5)
    (sparse,) = result.saes
    dense = np.zeros_like(expected)
    dense[sparse.positions, sparse.features] = sparse.values
    np.testing.assert_allclose(dense, expected, atol=2e-5)
    assert (np.diff(np.array(sparse.positions) * 10_000 + sparse.features) > 0).all()
    assert np.count_nonzero(expected) > 0


async def test_neurons_are_the_coordinates_of_their_hook(client: httpx.AsyncClient, world: LiveWorld) -> None:
    expected = stream(world, TEXTS[0], world.infos["3-mlp-id"].hook).numpy()
    answer = await ask(client, texts=[TEXTS[0]], features=at("3-mlp-id", 0, 159))
    for index, found in zip((0, 159), answer.results[0].features, strict=True):
        np.testing.assert_allclose(numbers(found.values)[1:], expected[1:, index], atol=1e-5)


async def test_a_batch_of_mixed_lengths_equals_one_by_one(client: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {
        "features": [one for slug in ALL_KINDS for one in at(slug, 1, 30)],
        "saes": ["1-res-std", "2-res-jump"],
        "vectors": [{"vector": [0.1] * 64, "hook": "blocks.0.hook_resid_post"}],
    }
    together = await ask(client, texts=TEXTS, **asked)
    assert len({len(result.tokens) for result in together.results}) == len(TEXTS)
    for text, result in zip(TEXTS, together.results, strict=True):
        (alone,) = (await ask(client, texts=[text], **asked)).results
        assert alone.token_ids == result.token_ids
        for one, other in zip(alone.features, result.features, strict=True):
            np.testing.assert_allclose(numbers(one.values), numbers(other.values), atol=2e-5)
        np.testing.assert_allclose(
            numbers(alone.vectors[0].values), numbers(result.vectors[0].values), atol=2e-5
        )
        for one, other in zip(alone.saes, result.saes, strict=True):
            assert (one.positions, one.features) == (other.positions, other.features)
            np.testing.assert_allclose(one.values, other.values, atol=2e-5)


async def test_directions_are_dot_products(client: httpx.AsyncClient, world: LiveWorld) -> None:
    vector = torch.randn(64, generator=torch.Generator().manual_seed(3))
    given = {"vector": vector.tolist(), "hook": "model.layers.2"}
    answer = await ask(client, texts=[TEXTS[0]], vectors=[given], prepend_bos=False)
    hook = parse_hook("blocks.2.hook_resid_post", world.model.shape)
    expected = (stream(world, TEXTS[0], hook, prepend_bos=False) @ vector).numpy()
    (found,) = answer.results[0].vectors
    assert found.hook == "blocks.2.hook_resid_post"
    np.testing.assert_allclose(numbers(found.values), expected, atol=1e-4)
    assert found.max == pytest.approx(float(expected.max()), abs=1e-4)
    assert found.max_position == int(expected.argmax())


async def test_bos_is_null_when_ignored_and_nothing_else_changes(client: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {"texts": [TEXTS[0]], "features": at("2-res-jump", 3), "saes": ["2-res-jump"]}
    ignored = (await ask(client, **asked)).results[0]
    kept = (await ask(client, **asked, ignore_bos=False)).results[0]
    assert ignored.features[0].values[0] is None
    assert kept.features[0].values[0] is not None
    np.testing.assert_allclose(
        numbers(ignored.features[0].values)[1:], numbers(kept.features[0].values)[1:], atol=1e-5
    )
    assert 0 not in ignored.saes[0].positions
    assert 0 in kept.saes[0].positions


async def test_maximum_names_its_token(client: httpx.AsyncClient) -> None:
    answer = (await ask(client, texts=[TEXTS[0]], features=at("1-res-std", *range(96)))).results[0]
    seen = set()
    for found in answer.features:
        values = numbers(found.values)[1:]
        if found.max == 0:
            assert not values.any()
            assert (found.max_position, found.max_token) == (None, None)
            continue
        assert found.max == pytest.approx(values.max())
        assert found.max_position == int(values.argmax()) + 1
        assert found.max_token == answer.tokens[found.max_position]
        seen.add(found.max_position)
    assert len(seen) > 1


async def test_token_ids_are_read_as_they_are(client: httpx.AsyncClient, world: LiveWorld) -> None:
    ids = [world.model.bos_id, *world.model.tokenize(TEXTS[0])]
    by_ids = await ask(client, token_ids=[ids, ids[1:]], features=at("1-res-std", 7))
    by_text = await ask(client, texts=[TEXTS[0]], features=at("1-res-std", 7))
    assert by_ids.results[0] == by_text.results[0]
    assert by_ids.results[1].features[0].values[0] is not None
    assert len(by_ids.results[1].tokens) == len(ids) - 1


async def test_references_may_be_spelled_out_and_repeated(client: httpx.AsyncClient) -> None:
    named = ["tiny/1-res-std/7", {"sae": "1-res-std", "feature": 7}, "tiny/0-res-topk/2"]
    answer = await ask(client, texts=[TEXTS[0]], features=named)
    first, second, third = answer.results[0].features
    assert first == second
    assert third.ref == "tiny/0-res-topk/2"


async def test_answers_say_what_they_were_computed_with(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ask(client, texts=["a"], features=at("1-res-std", 7), saes=["1-bare"])
    said = answer.provenance
    assert (said.model, said.dtype, said.device, said.bos) == ("tiny", "float32", "cpu", "prepended")
    assert said.weights_sha256 == world.model.provenance["weights_sha256"]
    assert [one.sae for one in said.saes] == ["1-bare", "1-res-std"]
    assert said.saes[0].version is None
    assert said.saes[1].version is not None
    assert said.saes[1].hook == "blocks.1.hook_resid_post"
    times = answer.timings
    assert 0 < times.run_ms <= times.total_ms
    assert times.tokenize_ms + times.queue_ms + times.run_ms <= times.total_ms + 1


async def test_bos_is_told_of_all_rows(client: httpx.AsyncClient) -> None:
    async def told(**changes: Any) -> str:
        return (await ask(client, features=at("1-res-std", 7), **changes)).provenance.bos

    with_bos = "<|im_start|>the cat"
    assert await told(texts=["the cat", with_bos]) == "prepended"
    assert await told(texts=["the cat", "a"], prepend_bos=False) == "none"
    assert await told(texts=[with_bos, "the cat"], prepend_bos=False) == "mixed"
    assert await told(token_ids=[[1, 40], [40, 41]]) == "as_given"


async def test_a_text_at_the_limit_is_read_and_one_over_is_not(client: httpx.AsyncClient) -> None:
    full = (await ask(client, token_ids=[[5] * 512], features=at("1-res-std", 7))).results[0]
    assert len(full.tokens) == 512
    body = await refusal(client, 422, "too-long", token_ids=[[5], [5] * 513], features=at("1-res-std", 7))
    assert (body["limit"], body["value"]) == (512, 513)
    assert body["errors"][0]["field"] == "#/token_ids/1"


F = {"features": at("1-res-std", 7)}
V = {"hook": "blocks.0.hook_resid_post"}


@pytest.mark.parametrize(
    ("body", "status", "slug", "said"),
    [
        ({"texts": [""], **F}, 422, "invalid-request", "#/texts/0"),
        ({"texts": ["a" * 1_000_000], **F}, 422, "invalid-request", "100000"),
        ({"texts": ["the " * 600], **F}, 422, "too-long", "the limit is 512"),
        ({"texts": ["half \ud83d of a pair"], **F}, 422, "invalid-request", "surrogate"),
        ({"texts": ["a\x00b"], **F}, 422, "invalid-request", "NUL"),
        ({"texts": ["a"] * 65, **F}, 422, "invalid-request", "64"),
        ({"texts": [], **F}, 422, "invalid-request", "texts"),
        ({"texts": ["a"]}, 422, "invalid-request", "features, saes or vectors"),
        ({"texts": ["a"], "token_ids": [[1]], **F}, 422, "invalid-request", "either"),
        ({"token_ids": [[1, 10_000]], **F}, 422, "invalid-request", "#/token_ids/0/1"),
        ({"token_ids": [[-1]], **F}, 422, "invalid-request", "outside 0.."),
        ({"texts": ["a"], "features": at("1-res-std", 96)}, 404, "feature-not-found", "outside 0..95"),
        ({"texts": ["a"], "features": at("1-res-std", -1)}, 422, "invalid-request", "#/features/0"),
        ({"texts": ["a"], "features": at("nothing", 1)}, 404, "sae-not-found", "nothing"),
        ({"texts": ["a"], "saes": ["nothing"]}, 404, "sae-not-found", "nothing"),
        ({"texts": ["a"], "features": ["gpt2/1-res-std/7"]}, 422, "invalid-request", "is not of model tiny"),
        ({"texts": ["a"], "vectors": [{"vector": [1.0] * 63, **V}]}, 422, "invalid-request", "63 numbers"),
        (
            {"texts": ["a"], "vectors": [{"vector": [float("nan")] * 64, **V}]},
            422,
            "invalid-request",
            "#/vec",
        ),
        ({"texts": ["a"], "vectors": [{"vector": [1e39] * 64, **V}]}, 422, "invalid-request", "float32"),
        ({"texts": ["a"], "vectors": [{"vector": [1.0], "hook": "nope"}]}, 422, "invalid-request", "nope"),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, slug: str, said: str
) -> None:
    answer = await refusal(client, status, slug, **body)
    assert said in answer["detail"]


async def test_a_vector_of_the_wrong_width_is_told_both_numbers(client: httpx.AsyncClient) -> None:
    vector = {"vector": [1.0] * 160, "hook": "blocks.0.hook_resid_post"}
    body = await refusal(client, 422, "invalid-request", texts=["a"], vectors=[vector])
    assert (body["limit"], body["value"]) == (64, 160)
    assert body["errors"][0]["field"] == "#/vectors/0/vector"


async def test_an_answer_has_a_largest_size(client: httpx.AsyncClient) -> None:
    ids = [[5] * 512] * 30
    body = await refusal(client, 413, "too-large", token_ids=ids, features=at("1-res-std", *range(96)) * 10)
    assert body["what"] == "values"
    assert body["value"] == 30 * 512 * 960 > body["limit"]
