"""Activations: one caller, and many."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from benchmarks.inference.bench import SAE, Bench, reading, request
from benchmarks.inference.callers import Crowd, Errand, Pulse, crowd, pulse, spent_by
from benchmarks.inference.texts import Text
from benchmarks.inference.turns import Side, Spent, by_turns, compared, medians
from benchmarks.latency import KeepAlive

LOG = logging.getLogger("bench.inference")
ACTIVATIONS = "/v1/activations"
FEATURE = 650
TWENTY = tuple(range(0, 3000, 150))
SHORT, MIDDLE, LONG = 16, 64, 128
SAES = ("7-res-3k", SAE, "23-res-3k")
CALLERS = {8: 64, 32: 128}
"""Texts of one round by number of callers."""


def agreement(bench: Bench) -> dict[str, float]:
    """The largest difference between our values and the floor's, over the features that matter on a text."""
    (text,) = bench.texts.deal(1, MIDDLE)
    top = bench.asked("/v1/activations/top", {"text": text.text, "saes": [SAE], "k": 20})
    features = [one["index"] for one in top["results"]]
    (found,) = bench.asked(ACTIVATIONS, reading(text.text, features))["results"]
    _, wanted = bench.floor.read([text.ids], sae=SAE, features=features, batch=1)
    ours = [one["values"][1:] for one in found["features"]]
    pairs = [
        (mine, theirs)
        for column, row in enumerate(ours)
        for mine, theirs in zip(row, (at[column] for at in wanted), strict=True)
    ]
    return {
        "largest_value": max(abs(theirs) for _, theirs in pairs),
        "largest_difference": max(abs(mine - theirs) for mine, theirs in pairs),
    }


def one_caller(bench: Bench) -> dict[str, Any]:
    """Features at layer 15 for one caller: against the floor, by features asked for, through the gateway."""
    with bench.gateway() as gateway:
        through = KeepAlive(gateway.base)
        found = _one_caller(bench, through)
        through.close()
    LOG.info("one caller: %s", json.dumps(found))
    return found


def _one_caller(bench: Bench, through: KeepAlive) -> dict[str, Any]:
    rounds = bench.sizes.one_caller
    texts = {name: bench.texts.deal(rounds, MIDDLE) for name in ("ours", "twenty", "gateway")}

    def ours(name: str, features: Sequence[int], client: KeepAlive | None = None) -> Side:
        return lambda number: bench.timed_post(
            ACTIVATIONS, reading(texts[name][number].text, features), client
        )

    through.post(ACTIVATIONS, request(reading("Once upon a time", (FEATURE,))))
    middle = by_turns(
        {
            "ours": ours("ours", (FEATURE,)),
            "floor": _floor(bench, texts["ours"]),
            "twenty": ours("twenty", TWENTY),
            "gateway": ours("gateway", (FEATURE,), through),
        },
        rounds,
    )
    texts["long"] = bench.texts.deal(rounds, LONG)
    long = by_turns({"ours": ours("long", (FEATURE,)), "floor": _floor(bench, texts["long"])}, rounds)
    found = {str(MIDDLE): compared(middle, "ours", "floor"), str(LONG): compared(long, "ours", "floor")}
    parts = found[str(MIDDLE)]
    found["twenty_over_one"] = parts["twenty"]["wall_s"] / parts["ours"]["wall_s"]
    found["gateway_over_host"] = parts["gateway"]["wall_s"] / parts["ours"]["wall_s"]
    return found


def same_text(bench: Bench) -> dict[str, float]:
    """Twenty requests for one text, one feature each, as readers of dashboards send them."""
    rounds = max(2, bench.sizes.layers // 3)
    texts = bench.texts.deal(rounds, MIDDLE)

    def first(number: int) -> Spent:
        return bench.timed_post(ACTIVATIONS, reading(texts[number].text, TWENTY[:1]))

    def others(number: int) -> Spent:
        spent = [bench.timed_post(ACTIVATIONS, reading(texts[number].text, (one,))) for one in TWENTY[1:]]
        return Spent(sum(one.wall_s for one in spent), sum(one.cpu_s for one in spent))

    both = [(first(number), others(number)) for number in range(rounds)]
    middle = medians({"first": [one for one, _ in both], "others": [one for _, one in both]})
    once, rest = middle["first"]["wall_s"], middle["others"]["wall_s"]
    return {"first_s": once, "all_s": once + rest, "ratio": (once + rest) / once}


def by_layer(bench: Bench) -> dict[str, Any]:
    """The same request at hooks of different depth."""
    rounds = bench.sizes.layers
    texts = {sae: bench.texts.deal(rounds, MIDDLE) for sae in SAES}

    def ours(sae: str) -> Side:
        return lambda number: bench.timed_post(ACTIVATIONS, reading(texts[sae][number].text, (FEATURE,), sae))

    sides: dict[str, Side] = {sae: ours(sae) for sae in SAES}
    sides |= {f"floor {sae}": _floor(bench, texts[sae], sae) for sae in SAES}
    found = medians(by_turns(sides, rounds))
    LOG.info("by layer: %s", json.dumps(found))
    return found


def many_callers(bench: Bench) -> dict[str, Any]:
    """Callers who each ask for a text's feature again and again, against full batches in one process."""
    found: dict[str, Any] = {}
    for callers, count in CALLERS.items():
        rounds = bench.sizes.many_rounds
        texts = [bench.texts.deal(count, MIDDLE) for _ in range(rounds)]
        beats = Pulse()
        with crowd(bench.host.base, callers) as people:
            spent = by_turns(
                {
                    "ours": _waves(bench, people, texts, beats),
                    "floor": _batches(bench, texts, callers),
                },
                rounds,
            )
        result = compared(spent, "ours", "floor")
        result["throughput_ratio"] = 1 / result.pop("ratio")
        found[str(callers)] = {**result, "texts": count, "livez": beats.summary()}
        LOG.info("%d callers: %s", callers, json.dumps(found[str(callers)]))
    return found


def short_texts(bench: Bench) -> dict[str, Any]:
    """Texts of 16 tokens by one caller, and the same number by 8 and by 32."""
    rounds, count = bench.sizes.short_rounds, bench.sizes.short_texts
    texts = {callers: [bench.texts.deal(count, SHORT) for _ in range(rounds)] for callers in (1, 8, 32)}
    beats = Pulse()
    with (
        crowd(bench.host.base, 1) as one,
        crowd(bench.host.base, 8) as few,
        crowd(bench.host.base, 32) as many,
    ):
        people = {1: one, 8: few, 32: many}
        sides = {str(n): _waves(bench, group, texts[n], beats) for n, group in people.items()}
        spent = medians(by_turns(sides, rounds))
    result: dict[str, Any] = {"texts": count, "livez": beats.summary(), **spent}
    for callers in ("8", "32"):
        result[f"gain_{callers}"] = spent["1"]["wall_s"] / spent[callers]["wall_s"]
    LOG.info("short texts: %s", json.dumps(result))
    return result


def _floor(bench: Bench, texts: Sequence[Text], sae: str = SAE) -> Side:
    return lambda number: bench.floor.read([texts[number].ids], sae=sae, features=[FEATURE], batch=1)[0]


def _batches(bench: Bench, texts: Sequence[Sequence[Text]], batch: int) -> Side:
    def work(number: int) -> Spent:
        rows = [text.ids for text in texts[number]]
        return bench.floor.read(rows, sae=SAE, features=[FEATURE], batch=batch)[0]

    return work


def _waves(bench: Bench, people: Crowd, texts: Sequence[Sequence[Text]], beats: Pulse) -> Side:
    def work(number: int) -> Spent:
        errands = [_errand(text) for text in texts[number]]
        with pulse(bench.host.base, beats):
            return spent_by(bench.host, lambda: people.wave(errands))[1]

    return work


def _errand(text: Text) -> Errand[bytes]:
    raw = request(reading(text.text, (FEATURE,)))
    return lambda client: client.post(ACTIVATIONS, raw)
