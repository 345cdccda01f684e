"""From entries to a table: means with intervals over features, paired differences, cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from interpedia_autointerp.benchmarks.entries import EMPTY, Entry
from interpedia_autointerp.statistics import holm, mean_interval, paired_difference

CHANCE: Mapping[str, float] = {"simulation": 0.0, "intervention": 0.0}
"""Of scorers whose number is no share of right answers; of all others a half."""
_LEFT_OUT = frozenset({"insufficient", "not_applicable"})


def report(entries: Sequence[Entry], *, seed: int = 0) -> dict[str, Any]:
    """A table for each scorer, and the differences of methods on the features that both were asked about.

    A feature that a method failed on counts with what chance gives: a method cannot gain by failing.
    """
    scorers = list(dict.fromkeys(entry.scorer for entry in entries))
    return {
        "features": len({entry.feature for entry in entries}),
        "tables": {name: _table(_of(entries, name), seed) for name in scorers},
        "differences": {name: _differences(_of(entries, name), seed) for name in scorers},
    }


def _of(entries: Sequence[Entry], scorer: str) -> list[Entry]:
    return [entry for entry in entries if entry.scorer == scorer]


def _table(entries: Sequence[Entry], seed: int) -> list[dict[str, Any]]:
    methods = list(dict.fromkeys(entry.method for entry in entries))
    return [_row(method, [e for e in entries if e.method == method], seed) for method in methods]


def _row(method: str, entries: Sequence[Entry], seed: int) -> dict[str, Any]:
    counted = [entry for entry in entries if entry.status not in _LEFT_OUT]
    values = [_value(entry) for entry in counted]
    shuffled = [entry.shuffled for entry in counted if entry.shuffled is not None]
    widths = [e.ci_high - e.ci_low for e in counted if e.ci_low is not None and e.ci_high is not None]
    interval = mean_interval(values, seed=seed)
    tokens = _mean([entry.explain_tokens + entry.score_tokens for entry in counted])
    mean = _mean(values)
    chance = _mean([_chance(entry) for entry in counted])
    gain = None if mean is None or chance is None else mean - chance
    return {
        "method": method,
        "metric": next((entry.metric for entry in counted if entry.metric), None),
        "n": len(counted),
        "failed": sum(entry.status != "ok" for entry in counted),
        "left_out": len(entries) - len(counted),
        "mean": mean,
        "ci_low": None if interval is None else interval.low,
        "ci_high": None if interval is None else interval.high,
        "shuffled": _mean(shuffled),
        "item_interval": _mean(widths),
        "explain_tokens": _mean([entry.explain_tokens for entry in counted]),
        "score_tokens": _mean([entry.score_tokens for entry in counted]),
        "tokens_per_point": tokens / (100 * gain) if tokens and gain and gain > 0 else None,
    }


def _value(entry: Entry) -> float:
    return _chance(entry) if entry.value is None else entry.value


def _chance(entry: Entry) -> float:
    return CHANCE.get(entry.scorer, 0.5)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _differences(entries: Sequence[Entry], seed: int) -> list[dict[str, Any]]:
    """Every two methods, paired by feature; p of the sign test, after Holm over all of them."""
    by_method: dict[str, dict[str, float]] = {}
    for entry in entries:
        if entry.status not in _LEFT_OUT and not entry.method.startswith("scrambled:"):
            by_method.setdefault(entry.method, {})[entry.feature] = _value(entry)
    found: list[dict[str, Any]] = []
    for left, right in combinations(sorted(by_method, key=lambda name: name == EMPTY), 2):
        both = sorted(by_method[left].keys() & by_method[right].keys())
        if len(both) < 2:
            continue
        paired = paired_difference(
            [by_method[left][each] for each in both], [by_method[right][each] for each in both], seed=seed
        )
        found.append({"left": left, "right": right, **_shown(paired._asdict())})
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = p
    return found


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    interval = values.pop("interval")
    low, high = (None, None) if interval is None else interval
    return {**values, "ci_low": low, "ci_high": high}
