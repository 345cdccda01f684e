"""The numbers that scorers report, each with its interval."""

from __future__ import annotations

import math

import numpy as np

from interpedia_autointerp.scorers.tally import Metric, Tally
from interpedia_autointerp.statistics import Interval, population_f1, population_precision, weighted, wilson


def _rates(items: Tally) -> tuple[Interval, Interval]:
    """Wilson intervals of hits among the firing and of alarms among the silent items."""
    return _share(items, fires=True), _share(items, fires=False)


def _share(items: Tally, *, fires: bool, is_sized: bool = False) -> Interval:
    """Of `says`; with sizes by the number of equal items that would be as sure (Kish's effective size)."""
    chosen = items.truths == fires
    sizes = items.sizes[chosen] if is_sized else np.ones(int(chosen.sum()))
    if not sizes.sum():
        return Interval(0.0, 1.0)
    mean = float((items.says[chosen] * sizes).sum() / sizes.sum())
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    interval = wilson(mean * effective, effective)
    return interval or Interval(0.0, 1.0)


def _balanced_floor(items: Tally, value: float) -> Interval:
    """Interval of (TPR + TNR) / 2 from those of both. Source: Newcombe (1998), method 10, for a sum."""
    hits, alarms = _rates(items)
    tpr, fpr = float(items.says[items.truths].mean()), float(items.says[~items.truths].mean())
    below = math.hypot(tpr - hits.low, alarms.high - fpr) / 2
    above = math.hypot(hits.high - tpr, fpr - alarms.low) / 2
    return Interval(max(0.0, value - below), min(1.0, value + above))


def _smaller_side(items: Tally, value: float) -> Interval | None:
    """As if it were a proportion of the rarer kind's number of items."""
    n = int(min(items.truths.sum(), (~items.truths).sum()))
    return wilson(value * n, n)


def _hits_floor(items: Tally, _value: float) -> Interval:
    return _share(items, fires=True)


def _alarms_floor(items: Tally, _value: float) -> Interval:
    return _share(items, fires=False)


BALANCED_ACCURACY = Metric(
    "balanced_accuracy",
    lambda items: weighted.balanced_accuracy(items.credit, items.truths.tolist()),
    _balanced_floor,
)
TPR = Metric("tpr", lambda items: weighted.rate(items.says, items.truths), _hits_floor)
FPR = Metric("fpr", lambda items: weighted.rate(items.says, ~items.truths), _alarms_floor)
AUROC = Metric("auroc", lambda items: weighted.auroc(items.ranks, items.truths.tolist()), _smaller_side)
AVERAGE_PRECISION = Metric(
    "average_precision",
    lambda items: weighted.average_precision(items.ranks, items.truths.tolist()),
    _smaller_side,
)
# what failed is ranked beyond all probabilities: cut back it is as wrong as can be
BRIER = Metric(
    "brier",
    lambda items: weighted.mean((np.clip(items.ranks, 0, 1) - items.truths) ** 2),
    lambda items, value: wilson(value * len(items.truths), len(items.truths)),
)


def population_metrics(density: float) -> list[Metric]:
    """Precision, recall and F1 among all windows of the corpus, of which the feature fires in `density`."""

    def corners(items: Tally) -> tuple[Interval, Interval]:
        return _share(items, fires=True, is_sized=True), _share(items, fires=False, is_sized=True)

    def precision_floor(items: Tally, value: float) -> Interval:
        hits, alarms = corners(items)
        low = population_precision(hits.low, alarms.high, density)
        high = population_precision(hits.high, alarms.low, density)
        return Interval(value if low is None else low, value if high is None else high)

    def f1_floor(items: Tally, value: float) -> Interval:
        hits, alarms = corners(items)
        low = population_f1(hits.low, alarms.high, density)
        high = population_f1(hits.high, alarms.low, density)
        return Interval(value if low is None else low, value if high is None else high)

    def part(items: Tally, number: int):  # noqa: ANN202 the tuple's own type
        return weighted.population(items.says, items.truths.tolist(), items.sizes, density)[number]

    return [
        Metric("population_precision", lambda items: part(items, 0), precision_floor),
        Metric("population_recall", lambda items: part(items, 1), lambda items, _: corners(items)[0]),
        Metric("population_f1", lambda items: part(items, 2), f1_floor),
    ]
