"""Is one better than the other? Paired, and with a correction for asking often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from interpedia_autointerp.statistics.intervals import N_RESAMPLES, Interval, mean_interval


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of a fair coin giving this or a more uneven split; ties are left out by the caller.

    Source: Dixon & Mood (1946), exact binomial.
    """
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2 * tail)


class Paired(NamedTuple):
    """A difference of two methods on the same features.

    `p` is of the sign test, ties left out. `interval` is None for fewer than two features.
    """

    n: int
    difference: float
    interval: Interval | None
    wins: int
    losses: int
    p: float


def paired_difference(
    left: Sequence[float], right: Sequence[float], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Paired:
    """Left − right, feature by feature, with a bootstrap over features.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if len(left) != len(right) or not left:
        raise ValueError(f"{len(left)} and {len(right)} values cannot be paired")
    differences = np.asarray(left, np.float64) - np.asarray(right, np.float64)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return Paired(
        n=len(left),
        difference=float(differences.mean()),
        interval=mean_interval(differences.tolist(), seed=seed, n_resamples=n_resamples),
        wins=wins,
        losses=losses,
        p=sign_test(wins, losses),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given. Source: Holm (1979), step-down."""
    n = len(p_values)
    adjusted = [0.0] * n
    largest = 0.0
    for rank, at in enumerate(sorted(range(n), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, (n - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
