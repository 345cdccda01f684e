"""`POST /v1/attribute`: what the numbers are is the engine's test; here that they arrive, and refusals."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

TEXT = "the red cat is in the green house"
METRIC = {"good": [" river"], "bad": [" house"]}


def request(**changes: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "text": TEXT,
        "saes": ["1-res-std"],
        "metric": METRIC,
        "k": 6,
        "exact": 4,
        **changes,
    }


async def attribute(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/attribute", json=request(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_exact_effects_are_what_ablation_says(client: httpx.AsyncClient) -> None:
    answer = await attribute(client)
    assert len(answer["results"]) == 6
    tried = [one for one in answer["results"] if one["exact"] is not None]
    assert len(tried) == 4
    assert answer["results"][:4] == tried
    sizes = [abs(one["exact"]) for one in tried]
    assert sizes == sorted(sizes, reverse=True)
    for one in answer["results"]:
        assert sum(one["by_position"]) == pytest.approx(one["attribution"], abs=1e-4)
        assert one["by_position"][0] == 0  # BOS
        assert len(one["by_position"]) == len(answer["tokens"])
    best = tried[0]
    body = {"model": "tiny", "text": TEXT, "metric": METRIC, "features": [best["ref"]]}
    ablated = (await client.post("/v1/ablate", json=body)).json()["metric"]
    assert answer["metric"] == pytest.approx(ablated["default"], abs=1e-4)
    assert best["exact"] == pytest.approx(-ablated["change"], abs=1e-4)


async def test_several_saes_are_ranked_together(client: httpx.AsyncClient) -> None:
    answer = await attribute(client, saes=["0-res-topk", "2-res-jump", "2-tc"], k=40, exact=0)
    assert {one["sae"] for one in answer["results"]} == {"0-res-topk", "2-res-jump", "2-tc"}
    sizes = [abs(one["attribution"]) for one in answer["results"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(one["exact"] is None for one in answer["results"])


@pytest.mark.parametrize("method", ["integrated_gradients", "attribution_patching"])
async def test_other_methods(client: httpx.AsyncClient, method: str) -> None:
    corrupt = "the red cat is in the green music" if method == "attribution_patching" else None
    answer = await attribute(client, method=method, corrupt_text=corrupt)
    assert (answer["metric_corrupt"] is None) == (corrupt is None)
    assert any(one["exact"] for one in answer["results"])


@pytest.mark.parametrize(
    ("changes", "field", "fact"),
    [
        ({"method": "attribution_patching"}, "#/", "corrupt_text goes with"),
        (
            {"method": "attribution_patching", "corrupt_text": " river bird"},
            "#/corrupt_text",
            "has 3 tokens, but the text has 16",
        ),
        ({"metric": {"good": [" river bird"]}}, "#/metric/good/0", "must be a single one"),
        ({"metric": {"good": []}}, "#/metric/good", ""),
        ({"steps": 1}, "#/steps", ""),
        ({"k": 500, "text": " river" * 450}, "#/k", "the limit is 200000"),
    ],
)
async def test_bad_input_names_the_field(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str, fact: str
) -> None:
    answer = await client.post("/v1/attribute", json=request(**changes))
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["errors"][0]["field"] == field
    assert fact in problem["detail"]
