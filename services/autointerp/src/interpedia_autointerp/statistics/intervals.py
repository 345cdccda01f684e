"""95 % intervals: of proportions, and of any statistic by bootstrap over groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
N_RESAMPLES = 1000

Weights = NDArray[np.float64]
"""How often each item was drawn: [draws, items]."""
Statistic = Callable[[Weights], NDArray[np.float64]]
"""One value for each row of weights; NaN where it has none."""


class Interval(NamedTuple):
    """Both ends included."""

    low: float
    high: float


def wilson(successes: float, n: float) -> Interval | None:
    """Interval of a proportion; None for n = 0.

    Neither number need be whole: an abstention is half a success, weighted items are an effective number.

    Source: Wilson (1927), the score interval without continuity correction.
    """
    if n <= 0:
        return None
    # a share of weighted items may be above 1 by a last bit
    p, z2 = min(1.0, max(0.0, successes / n)), Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    # at the ends rounding would leave a last bit
    return Interval(0.0 if successes <= 0 else low, 1.0 if successes >= n else high)


def draw_weights(
    strata: Sequence[Hashable],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Weights:
    """How often each item is drawn, [n_resamples, n].

    Within each stratum as many groups are drawn, with replacement, as it has; all items of a group come
    along. Windows of one document are not independent: give the documents as groups.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_resamples, len(strata)))
    for part in _members(strata, groups):
        counts = rng.multinomial(len(part), np.full(len(part), 1 / len(part)), size=n_resamples)
        for number, items in enumerate(part):
            weights[:, items] = counts[:, number : number + 1]
    return weights


def percentiles(values: NDArray[np.float64]) -> Interval | None:
    """The middle 95 % of what the draws gave; None when more than half of them have no value.

    Source: Efron & Tibshirani (1993), ch. 13 (percentile interval).
    """
    known = values[~np.isnan(values)]
    if len(known) * 2 < len(values) or not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(low), float(high))


class Estimate(NamedTuple):
    """A value with its interval; both None where the statistic does not exist for these items."""

    value: float | None
    interval: Interval | None


def estimate(statistic: Statistic, drawn: Weights) -> Estimate:
    """The statistic of all items once, and its interval over the draws."""
    value = float(statistic(np.ones((1, drawn.shape[1])))[0])
    return Estimate(None, None) if math.isnan(value) else Estimate(value, percentiles(statistic(drawn)))


def _members(strata: Sequence[Hashable], groups: Sequence[Hashable] | None) -> list[list[NDArray[np.int64]]]:
    """For each stratum its groups, each the numbers of its items."""
    found: dict[Hashable, dict[Hashable, list[int]]] = {}
    for number, stratum in enumerate(strata):
        group = number if groups is None else groups[number]
        found.setdefault(stratum, {}).setdefault(group, []).append(number)
    return [[np.array(items, np.int64) for items in part.values()] for part in found.values()]


def mean_interval(
    values: Sequence[float], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Interval | None:
    """Of the mean over features, by bootstrap over them; None for fewer than two."""
    if len(values) < 2:
        return None
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), (n_resamples, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high))
