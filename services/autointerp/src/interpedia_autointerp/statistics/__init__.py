"""Metrics and their uncertainty, in numpy."""

from interpedia_autointerp.statistics import weighted
from interpedia_autointerp.statistics.comparison import Paired, holm, paired_difference, sign_test
from interpedia_autointerp.statistics.intervals import (
    Estimate,
    Interval,
    draw_weights,
    estimate,
    mean_interval,
    percentiles,
    wilson,
)
from interpedia_autointerp.statistics.metrics import (
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    explained_variance,
    kendall_tau,
    pearson,
)
from interpedia_autointerp.statistics.population import population_f1, population_precision

__all__ = [
    "Estimate",
    "Interval",
    "Paired",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "draw_weights",
    "estimate",
    "explained_variance",
    "holm",
    "kendall_tau",
    "mean_interval",
    "paired_difference",
    "pearson",
    "percentiles",
    "population_f1",
    "population_precision",
    "sign_test",
    "weighted",
    "wilson",
]
