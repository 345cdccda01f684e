"""`POST /v1/activations/top` against plain encodes of the same stream."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_inference.top.service import MAX_RANKED, MAX_VALUES
from tests.support.live_world import LiveWorld

TEXT = "the red cat is in the green house by the river"
SAES = ["0-res-topk", "1-res-std", "2-res-jump"]


def request(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "text": TEXT, "saes": SAES, **changes}


async def ask(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/activations/top", json=request(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refusal(client: httpx.AsyncClient, status: int = 422, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/activations/top", json=request(**changes))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def dense(world: LiveWorld, slug: str, *, prepend_bos: bool = True) -> torch.Tensor:
    """[pos, d_sae], by one forward pass of this text alone."""
    ids = [*([world.model.bos_id] if prepend_bos else []), *world.model.tokenize(TEXT)]
    hook = world.infos[slug].hook
    return world.saes[slug].encode(capture(world.model, torch.tensor([ids]), [hook])[hook][0])


def ranking(answer: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["sae"], one["index"]) for one in answer["results"]]


async def test_by_maximum_over_several_saes_in_one_answer(
    client: httpx.AsyncClient, world: LiveWorld
) -> None:
    answer = await ask(client, k=12)
    expected: list[tuple[float, str, int, int]] = []
    for slug in SAES:
        values = dense(world, slug)[1:]
        peak, position = values.abs().max(dim=0)
        expected += [
            (float(peak[index]), slug, index, int(position[index]) + 1) for index in range(values.shape[1])
        ]
    expected.sort(key=lambda row: -row[0])
    assert ranking(answer) == [(slug, index) for _, slug, index, _ in expected[:12]]
    for one, (value, slug, index, position) in zip(answer["results"], expected, strict=False):
        assert one["value"] == pytest.approx(value, rel=1e-4)
        assert (one["ref"], one["position"]) == (f"tiny/{slug}/{index}", position)
        assert one["token"] == answer["tokens"][position]
    assert answer["by_token"] is None
    assert [source["sae"] for source in answer["provenance"]["saes"]] == SAES


async def test_by_positions_sums_them(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ask(client, saes=["1-res-std"], by="positions", positions=[2, 4, 4], k=3)
    total = dense(world, "1-res-std")[[2, 4]].sum(dim=0)
    best = total.topk(3)
    assert [index for _, index in ranking(answer)] == best.indices.tolist()
    assert [one["value"] for one in answer["results"]] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert {one["position"] for one in answer["results"]} <= {2, 4}


async def test_at_each_token(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ask(client, saes=["1-res-std"], by="token", k=4)
    assert answer["results"] == []
    assert [at["token"] for at in answer["by_token"]] == answer["tokens"]
    assert answer["by_token"][0]["top"] == []  # BOS
    values = dense(world, "1-res-std")
    for at in answer["by_token"][1:]:
        assert [one["index"] for one in at["top"]] == values[at["position"]].topk(4).indices.tolist()


async def test_neurons_are_ranked_by_magnitude_and_keep_their_sign(
    client: httpx.AsyncClient, world: LiveWorld
) -> None:
    answer = await ask(client, saes=["3-mlp-id"], k=5)
    values = dense(world, "3-mlp-id")[1:]
    assert [index for _, index in ranking(answer)] == values.abs().max(dim=0).values.topk(5).indices.tolist()
    for one in answer["results"]:
        assert one["value"] == pytest.approx(float(values[one["position"] - 1, one["index"]]), rel=1e-4)


async def test_densities_are_filtered_before_the_top_k(client: httpx.AsyncClient, world: LiveWorld) -> None:
    density = {row["idx"]: row["density"] for row in world.rows["1-res-std"]}
    everything = await ask(client, saes=["1-res-std"], k=96)
    low, high = sorted(density.values())[20], sorted(density.values())[70]
    expected = [(slug, index) for slug, index in ranking(everything) if low <= density[index] <= high]
    assert 3 < len(expected) < len(ranking(everything))
    found = await ask(client, saes=["1-res-std"], k=3, min_density=low, max_density=high)
    assert ranking(found) == expected[:3]  # k of what is left, not what is left of k


async def test_values_at_every_token(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ask(client, saes=["1-res-std"], k=2, with_values=True)
    values = dense(world, "1-res-std")
    for one in answer["results"]:
        assert one["values"][0] is None  # BOS
        assert one["values"][1:] == pytest.approx(values[1:, one["index"]].tolist(), rel=1e-4, abs=1e-5)
    with_bos = await ask(client, saes=["1-res-std"], k=2, with_values=True, ignore_bos=False)
    assert None not in with_bos["results"][0]["values"]


async def test_an_sae_without_dashboards_ranks_but_cannot_be_filtered(client: httpx.AsyncClient) -> None:
    assert len((await ask(client, saes=["1-bare"], k=5))["results"]) == 5
    problem = await refusal(client, saes=["1-res-std", "1-bare"], min_density=0.01)
    assert problem["errors"][0]["field"] == "#/min_density"
    assert "1-bare has no dashboards" in problem["detail"]


@pytest.mark.parametrize(
    ("changes", "field", "fact"),
    [
        ({"by": "positions", "positions": [1, 99]}, "#/positions/1", "99 is outside 0.."),
        ({"by": "positions", "positions": [-1]}, "#/positions/0", "-1 is outside 0.."),
        ({"by": "positions", "positions": [0]}, "#/positions/0", "BOS"),
        ({"by": "positions"}, "#/", "positions go with"),
        ({"k": 0}, "#/k", "greater than or equal to 1"),
        ({"by": "token", "k": 101}, "#/", "at most 100"),
        ({"min_density": 0.5, "max_density": 0.1}, "#/", "above max_density"),
        ({"min_density": float("nan")}, "#/min_density", ""),
        ({"saes": []}, "#/saes", ""),
        ({"text": ""}, "#/text", ""),
    ],
)
async def test_bad_input_names_the_field(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str, fact: str
) -> None:
    # httpx would refuse to write a NaN; other clients do not
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/activations/top", content=json.dumps(request(**changes)), headers=headers)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["errors"][0]["field"] == field
    assert fact in problem["detail"]


async def test_an_answer_that_would_be_too_large_is_refused_with_limit_and_value(
    client: httpx.AsyncClient,
) -> None:
    long = " river" * 240  # 240 tokens and BOS
    problem = await refusal(client, text=long, by="token", k=100)
    assert (problem["limit"], problem["value"]) == (MAX_RANKED, 241 * 100)
    problem = await refusal(client, text=long, k=1000, with_values=True)
    assert (problem["limit"], problem["value"]) == (MAX_VALUES, 241 * 1000)


async def test_an_unknown_sae_is_not_found(client: httpx.AsyncClient) -> None:
    problem = await refusal(client, 404, saes=["9-none"])
    assert problem["sae"] == "9-none"
