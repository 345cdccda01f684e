"""The same metrics for items drawn several times: many draws at once, for bootstraps.

Everywhere `weights` is [draws, items] and the result [draws], NaN where the metric does not exist.
With all weights 1 they equal those of `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def mean(values: ArrayLike) -> Callable[[Floats], Floats]:
    """Weighted mean of the items."""
    column = np.asarray(values, np.float64)
    return lambda weights: _divide(weights @ column, weights.sum(axis=1))


def rate(values: ArrayLike, of: ArrayLike, sizes: ArrayLike | None = None) -> Callable[[Floats], Floats]:
    """Mean of `values` over the items marked in `of`; `sizes` is what each stands for in the population."""
    marks = np.asarray(of, np.float64)
    if sizes is not None:
        marks = marks * np.asarray(sizes, np.float64)
    column = np.asarray(values, np.float64) * marks
    return lambda weights: _divide(weights @ column, weights @ marks)


def balanced_accuracy(credit: ArrayLike, truths: Sequence[bool]) -> Callable[[Floats], Floats]:
    """(TPR + TNR) / 2."""
    is_true = np.asarray(truths, np.bool_)
    hits, passes = rate(credit, is_true), rate(credit, ~is_true)
    return lambda weights: (hits(weights) + passes(weights)) / 2


def auroc(scores: ArrayLike, truths: Sequence[bool]) -> Callable[[Floats], Floats]:
    """Mann & Whitney's, over pairs."""
    values, is_true = np.asarray(scores, np.float64), np.asarray(truths, np.bool_)
    gaps = values[is_true][:, None] - values[~is_true][None, :]
    wins = (gaps > 0) + 0.5 * (gaps == 0)

    def of(weights: Floats) -> Floats:
        true, false = weights[:, is_true], weights[:, ~is_true]
        return _divide(((true @ wins) * false).sum(axis=1), true.sum(axis=1) * false.sum(axis=1))

    return of


def average_precision(scores: ArrayLike, truths: Sequence[bool]) -> Callable[[Floats], Floats]:
    """Σ (Rₖ − Rₖ₋₁)·Pₖ, items of equal score together."""
    values, is_true = np.asarray(scores, np.float64), np.asarray(truths, np.bool_)
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, np.array([True])))

    def of(weights: Floats) -> Floats:
        ranked = weights[:, order]
        found = np.cumsum(ranked * is_true[order], axis=1)[:, ends]
        seen = np.cumsum(ranked, axis=1)[:, ends]
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        steps = np.diff(found, axis=1, prepend=0.0)
        return _divide((steps * precision).sum(axis=1), found[:, -1])

    return of


def pearson(predicted: Sequence[ArrayLike], actual: Sequence[ArrayLike]) -> Callable[[Floats], Floats]:
    """R over all tokens of all items together; an item is one sequence of tokens.

    0 where the prediction is constant, NaN where the truth is.
    """
    sums = np.array([_sums(p, a) for p, a in zip(predicted, actual, strict=True)]).reshape(-1, 6)

    def of(weights: Floats) -> Floats:
        n, p, a, pa, pp, aa = (weights @ sums).T
        across = n * pa - p * a
        spread_p, spread_a = n * pp - p * p, n * aa - a * a
        # what rounding leaves of a constant is not spread
        flat_p, flat_a = spread_p <= 1e-9 * n * pp, spread_a <= 1e-9 * n * aa
        r = np.zeros(len(n))
        size = np.sqrt(np.maximum(spread_p, 0) * np.maximum(spread_a, 0))
        np.divide(across, size, out=r, where=~flat_p & ~flat_a & (size > 0))
        return np.where(flat_a, np.nan, np.clip(r, -1, 1))

    return of


def _sums(predicted: ArrayLike, actual: ArrayLike) -> list[float]:
    p, a = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    return [len(p), p.sum(), a.sum(), (p * a).sum(), (p * p).sum(), (a * a).sum()]


def population(
    says: ArrayLike, truths: Sequence[bool], sizes: ArrayLike, density: float
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """Precision, recall and F1 among all windows of the corpus; see `population`.

    Args:
        says: how much the judge takes each item for one where the feature fires, 0 to 1.
        truths: whether it does.
        sizes: how much of the firing, or of the silent, windows each item stands for; 0 for items that
            were not drawn from the population.
        density: fraction of windows in which it fires.
    """
    is_true = np.asarray(truths, np.bool_)
    recall, alarm = rate(says, is_true, sizes), rate(says, ~is_true, sizes)

    def precision(weights: Floats) -> Floats:
        hits = recall(weights) * density
        return _divide(hits, hits + alarm(weights) * (1 - density))

    def f1(weights: Floats) -> Floats:
        hits = recall(weights) * density
        return _divide(2 * hits, hits + alarm(weights) * (1 - density) + density)

    return precision, recall, f1
