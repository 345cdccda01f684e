"""`POST /v1/ablate` against a forward pass changed by hand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

from tests.support.live_world import LiveWorld

TEXT = "the red cat is in the green house by the river"
FEATURES = [{"sae": "1-res-std", "feature": 5}, {"sae": "1-res-std", "feature": 17}]
METRIC = {"good": [" river"], "bad": [" house", " bird"]}


def request(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "text": TEXT, "features": FEATURES, **changes}


async def ablate(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/ablate", json=request(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_hand(
    world: LiveWorld, new: dict[int, Tensor | float], *, positions: list[int] | None = None
) -> Tensor:
    """Logits [pos, vocab] with features of `1-res-std` set to new values, everywhere but at BOS."""
    ids = torch.tensor([[world.model.bos_id, *world.model.tokenize(TEXT)]])
    sae = world.saes["1-res-std"]

    def change(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        f = sae.encode(hidden)
        wanted = f.clone()
        where = list(range(1, hidden.shape[1])) if positions is None else positions
        for index, value in new.items():
            wanted[0, where, index] = value if isinstance(value, float) else value[where]
        hidden = hidden + sae.decode(wanted) - sae.decode(f)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = world.model.hf.get_submodule("model.layers.1").register_forward_hook(change)
    try:
        with torch.no_grad():
            return world.model.hf(ids).logits[0]
    finally:
        handle.remove()


def losses(world: LiveWorld, logits: Tensor) -> list[float]:
    following = torch.tensor(world.model.tokenize(TEXT))
    return (-logits.log_softmax(-1)[:-1].gather(1, following[:, None])[:, 0]).tolist()


async def test_zero_ablation_is_a_manual_forward(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ablate(client, metric=METRIC, k=5)
    before, after = by_hand(world, {}), by_hand(world, {5: 0.0, 17: 0.0})
    told = answer["by_token"]
    assert [at["loss_default"] for at in told[:-1]] == pytest.approx(losses(world, before), abs=1e-4)
    assert [at["loss_ablated"] for at in told[:-1]] == pytest.approx(losses(world, after), abs=1e-4)
    assert told[-1]["loss_default"] is None
    assert answer["loss_default"] == pytest.approx(sum(losses(world, before)) / (len(told) - 1), abs=1e-4)
    p, q = before.log_softmax(-1), after.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    assert [at["kl"] for at in told] == pytest.approx(kl.tolist(), abs=1e-4)
    good, bad = world.model.tokenize(" river"), world.model.tokenize(" house bird")

    def metric(logits: Tensor) -> float:
        return float(logits[-1, good].logsumexp(0) - logits[-1, bad].logsumexp(0))

    assert answer["metric"]["change"] == pytest.approx(metric(after) - metric(before), abs=1e-4)
    assert answer["metric"]["logits_default"][" house"] == pytest.approx(float(before[-1, bad[0]]), abs=1e-4)
    assert set(answer["metric"]["logits_ablated"]) == {" river", " house", " bird"}
    rise = (after - before)[-1]
    assert [one["token_id"] for one in answer["rose"]] == rise.topk(5).indices.tolist()
    assert [one["token_id"] for one in answer["fell"]] == (-rise).topk(5).indices.tolist()
    assert answer["position"] == len(told) - 1


async def test_mean_is_over_all_corpus_tokens(client: httpx.AsyncClient, world: LiveWorld) -> None:
    """The column holds the mean over the tokens on which a feature is active."""
    rows = world.rows["1-res-std"]
    means = {index: rows[index]["density"] * rows[index]["mean_activation"] for index in (5, 17)}
    assert all(0 < rows[index]["density"] < 1 for index in (5, 17))
    answer = await ablate(client, method="mean")
    after = losses(world, by_hand(world, dict(means)))
    assert [at["loss_ablated"] for at in answer["by_token"][:-1]] == pytest.approx(after, abs=1e-4)


async def test_resampling_is_seeded(client: httpx.AsyncClient) -> None:
    text = "you have more time than the people of this city and the light"
    first, again, other = [
        await ablate(client, method="resample", resample_text=text, seed=seed) for seed in (1, 1, 2)
    ]
    assert first["by_token"] == again["by_token"]
    assert first["by_token"] != other["by_token"]


async def test_only_the_positions_named_change(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = await ablate(client, positions=[6, 7])
    after = losses(world, by_hand(world, {5: 0.0, 17: 0.0}, positions=[6, 7]))
    assert [at["loss_ablated"] for at in answer["by_token"][:-1]] == pytest.approx(after, abs=1e-4)
    assert [at["kl"] for at in answer["by_token"][:6]] == pytest.approx([0.0] * 6, abs=1e-6)
    assert answer["n_positions_changed"] <= 2


async def test_features_of_several_saes_go_together(client: httpx.AsyncClient) -> None:
    several = [{"sae": "0-res-topk", "feature": 3}, "tiny/2-tc/4", *FEATURES]
    both, one = await ablate(client, features=several), await ablate(client)
    assert both["kl_mean"] != one["kl_mean"]
    assert [source["sae"] for source in both["provenance"]["saes"]] == ["0-res-topk", "2-tc", "1-res-std"]


@pytest.mark.parametrize(
    ("changes", "status", "field", "fact"),
    [
        ({"positions": [99]}, 422, "#/positions/0", "99 is outside 0.."),
        ({"features": [*FEATURES, FEATURES[0]]}, 422, "#/features/2", "named twice"),
        ({"features": []}, 422, "#/features", ""),
        ({"features": ["other/1-res-std/5"]}, 422, "#/", "is not of model tiny"),
        ({"metric": {"good": [" river bird"]}}, 422, "#/metric/good/0", "2 tokens (' river', ' bird')"),
        (
            {"metric": {"good": [" river"], "bad": [" bird", " river"]}},
            422,
            "#/metric/bad/1",
            "in good as well",
        ),
        ({"metric": {"good": [" river"], "position": 99}}, 422, "#/metric/position", "99 is outside 0.."),
        ({"method": "resample"}, 422, "#/", "resample_text goes with"),
        ({"method": "mean", "features": ["tiny/1-bare/3"]}, 422, "#/features/0", "1-bare has no dashboards"),
        ({"features": ["tiny/1-res-std/96"]}, 404, None, "96"),
        ({"features": ["tiny/9-none/0"]}, 404, None, "9-none"),
        ({"text": " river" * 600}, 422, "#/text", "the limit is 512"),
    ],
)
async def test_bad_input_names_the_field(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, field: str | None, fact: str
) -> None:
    answer = await client.post("/v1/ablate", json=request(**changes))
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert fact in problem["detail"]
    if field is not None:
        assert problem["errors"][0]["field"] == field
