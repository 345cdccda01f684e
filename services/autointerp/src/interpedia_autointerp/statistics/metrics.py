"""How well numbers or verdicts go with the truth. Undefined is None, never NaN and never a lucky 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = ArrayLike


def _floats(values: Numbers) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _truths(values: Sequence[bool] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(values, np.bool_)


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def auroc(scores: Numbers, truths: Sequence[bool] | NDArray[np.bool_]) -> float | None:
    """Probability that a true item has a higher score than a false one; half for equal scores.

    None without items of both kinds. The signed form is 2·AUROC − 1.
    Source: Mann & Whitney (1947), U / (n₁·n₀).
    """
    values, is_true = _floats(scores), _truths(truths)
    n_true, n_false = int(is_true.sum()), int((~is_true).sum())
    if not n_true or not n_false:
        return None
    u = mean_ranks(values)[is_true].sum() - n_true * (n_true + 1) / 2
    return float(u / (n_true * n_false))


def average_precision(scores: Numbers, truths: Sequence[bool] | NDArray[np.bool_]) -> float | None:
    """Σ (Rₖ − Rₖ₋₁)·Pₖ over the thresholds, items of equal score together. None without a true item."""
    values, is_true = _floats(scores), _truths(truths)
    if not is_true.any():
        return None
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, np.array([True])))
    found = np.cumsum(is_true[order])[ends]
    precision = found / (ends + 1)
    recall = found / is_true.sum()
    return float((np.diff(np.append(0.0, recall)) * precision).sum())


def pearson(predicted: Numbers, actual: Numbers) -> float | None:
    """Pearson's r; 0 for a constant prediction, which says nothing. None when the truth is constant."""
    p, a = _floats(predicted), _floats(actual)
    if len(a) < 2 or np.ptp(a) == 0:
        return None
    if np.ptp(p) == 0:
        return 0.0
    p, a = p - p.mean(), a - a.mean()
    length = float(np.sqrt((p * p).sum()) * np.sqrt((a * a).sum()))
    return float(np.clip((p * a).sum() / length, -1.0, 1.0)) if length else 0.0


def explained_variance(predicted: Numbers, actual: Numbers) -> float | None:
    """1 − Σ(a − e)² / Σ(a − ā)² with e the least-squares line through the prediction, which has no units.

    The line is fitted on the same tokens, so this is r². For a constant prediction it is 0.
    """
    r = pearson(predicted, actual)
    return None if r is None else r * r


def balanced_accuracy(correct: Numbers, truths: Sequence[bool] | NDArray[np.bool_]) -> float | None:
    """(TPR + TNR) / 2, where `correct` is the credit of each item, 0 to 1. None without both kinds."""
    credit, is_true = _floats(correct), _truths(truths)
    if not is_true.any() or is_true.all():
        return None
    return float((credit[is_true].mean() + credit[~is_true].mean()) / 2)


def brier(probabilities: Numbers, truths: Sequence[bool] | NDArray[np.bool_]) -> float | None:
    """Mean of (p − y)²; 0.25 is what always saying one half gets. Source: Brier (1950)."""
    p, y = _floats(probabilities), _truths(truths).astype(np.float64)
    return float(((p - y) ** 2).mean()) if len(p) else None


def kendall_tau(left: Numbers, right: Numbers) -> float | None:
    """Kendall's τ-b, which allows for ties; None when one side is constant.

    Source: Kendall (1945), (C − D) / √((n₀ − n₁)(n₀ − n₂)).
    """
    a, b = _floats(left), _floats(right)
    i, j = np.triu_indices(len(a), 1)
    signs_a, signs_b = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    size = float(np.sqrt((signs_a != 0).sum()) * np.sqrt((signs_b != 0).sum()))
    return float((signs_a * signs_b).sum() / size) if size else None
