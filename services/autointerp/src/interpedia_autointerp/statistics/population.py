"""From rates on a balanced sample to what holds among all windows of a corpus."""

from __future__ import annotations


def population_precision(tpr: float, fpr: float, density: float) -> float | None:
    """Of the windows that the explanation fits, the fraction in which the feature fires.

    TPR·d / (TPR·d + FPR·(1 − d)), with d the fraction of windows in which it fires. None when the
    explanation fits no window at all.
    """
    hits = tpr * density
    alarms = fpr * (1 - density)
    return hits / (hits + alarms) if hits + alarms > 0 else None


def population_f1(tpr: float, fpr: float, density: float) -> float | None:
    """Harmonic mean of population precision and TPR; 0 when nothing is found. None at density 0."""
    if density <= 0:
        return None
    return 2 * tpr * density / (tpr * density + fpr * (1 - density) + density)
