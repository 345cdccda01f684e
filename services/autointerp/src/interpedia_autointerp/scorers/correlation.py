"""How well predicted activations follow the real ones, over all tokens of all windows."""

from __future__ import annotations

import math

import numpy as np

from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.tally import Floats, Metric, Statistic, Tally, window_of
from interpedia_autointerp.statistics import Interval, weighted
from interpedia_autointerp.statistics.intervals import Z95, Weights


def correlation_metrics(task: Task) -> list[Metric]:
    """Pearson's r, the explained variance, and r as it is among all windows of the corpus.

    Undefined where verdicts have no values, as stored ones. A failed window counts as predicted silent
    throughout. On a sample with far more firing windows than the corpus has, r is blind to what an
    explanation claims of others; the last one is not.
    """

    def r(items: Tally) -> Statistic:
        if not any(v.values is not None for v in items.verdicts):
            return _nothing
        actual = [task.by_id[window_of(v.item)].values for v in items.verdicts]
        predicted = [
            v.values if v.values is not None and v.state == "ok" else (0.0,) * len(values)
            for v, values in zip(items.verdicts, actual, strict=True)
        ]
        return weighted.pearson(predicted, actual)

    def in_population(items: Tally) -> Statistic:
        density = task.population.window_density
        firing, silent = (float(items.sizes[items.truths == each].sum()) for each in (True, False))
        if not (firing and silent and 0 < density < 1):
            return _nothing
        inner = r(items)
        masses = items.sizes * np.where(items.truths, density / firing, (1 - density) / silent)
        return lambda weights: inner(weights * masses)

    def variance(items: Tally) -> Statistic:
        # what goes against the truth explains nothing, though its square is positive
        inner = r(items)
        return lambda weights: np.maximum(inner(weights), 0.0) ** 2

    return [
        Metric("correlation", r, _fisher),
        Metric("explained_variance", variance, _fisher_squared),
        Metric("population_correlation", in_population, _fisher),
    ]


def _nothing(weights: Weights) -> Floats:
    return np.full(len(weights), np.nan)


def _fisher(items: Tally, value: float) -> Interval | None:
    """As if every document were one observation. Source: Fisher (1921), z = artanh r, s² = 1 / (n - 3)."""
    n = len(set(items.documents))
    if n <= 3:
        return None
    most = 1 - 1 / n
    z, half = math.atanh(min(most, max(-most, value))), Z95 / math.sqrt(n - 3)
    return Interval(math.tanh(z - half), math.tanh(z + half))


def _fisher_squared(items: Tally, value: float) -> Interval | None:
    found = _fisher(items, math.sqrt(value))
    return None if found is None else Interval(max(0.0, found.low) ** 2, max(0.0, found.high) ** 2)
