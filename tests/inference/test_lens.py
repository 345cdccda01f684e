"""`POST /v1/lens`: each layer is norm and unembedding of its stream, the last one the model itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook
from tests.support.live_world import LiveWorld

TEXT = "the red cat is in the green house"


async def lens(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/lens", json={"model": "tiny", "text": TEXT, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_layer_at_every_position(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await lens(client)
    model = world.model
    ids = torch.tensor([[model.bos_id, *model.tokenize(TEXT)]])
    assert answer["token_ids"] == ids[0].tolist()
    assert [layer["layer"] for layer in answer["layers"]] == [0, 1, 2, 3]
    for layer in answer["layers"]:
        hook = Hook("resid_post", layer["layer"])
        assert layer["hook"] == hook.name
        stream = capture(model, ids, [hook])[hook][0]
        with torch.no_grad():
            logits = model.hf.lm_head(model.hf.model.norm(stream.clone()))
        logprobs = logits.log_softmax(-1)
        for position, cell in enumerate(layer["cells"]):
            best = logprobs[position].topk(5)
            assert cell["token_ids"] == best.indices.tolist()
            assert cell["probabilities"] == pytest.approx(best.values.exp().tolist(), abs=1e-5)
            assert cell["entropy"] == pytest.approx(
                float(-(logprobs[position].exp() * logprobs[position]).sum()), abs=1e-3
            )
        assert layer["cells"][-1]["next_token_rank"] is None
        following = int(ids[0, 3])
        rank = int((logprobs[2] > logprobs[2, following]).sum())
        assert layer["cells"][2]["next_token_rank"] == rank


async def test_chosen_layers_and_positions(client: httpx.AsyncClient) -> None:
    everything, some = await lens(client), await lens(client, layers=[3, 1, 3], positions=[2, 0], k=2)
    assert [layer["layer"] for layer in some["layers"]] == [1, 3]
    assert some["positions"] == [2, 0]
    for layer in some["layers"]:
        whole = everything["layers"][layer["layer"]]["cells"]
        assert [cell["token_ids"] for cell in layer["cells"]] == [
            whole[position]["token_ids"][:2] for position in (2, 0)
        ]


@pytest.mark.parametrize(
    ("changes", "field", "fact"),
    [
        ({"layers": [4]}, "#/layers/0", "4 is outside 0..3"),
        ({"layers": [-1]}, "#/layers/0", "-1 is outside 0..3"),
        ({"positions": [0, 99]}, "#/positions/1", "99 is outside 0.."),
        ({"k": 51}, "#/k", ""),
        ({"text": " river" * 511, "k": 50}, "#/k", "the limit is 100000"),
        ({"text": " river" * 600}, "#/text", "the limit is 512"),
    ],
)
async def test_bad_input_names_the_field(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str, fact: str
) -> None:
    answer = await client.post("/v1/lens", json={"model": "tiny", "text": TEXT, **changes})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["errors"][0]["field"] == field
    assert fact in problem["detail"]
