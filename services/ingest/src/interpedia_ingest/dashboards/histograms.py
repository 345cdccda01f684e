"""Histograms of 50 equal-width bins, for many features at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.dashboards import HISTOGRAM_BINS

_NEAR = 1e-9
"""Distance to a bin's edge, in bins, below which rounding could have put a value on the wrong side."""


def linear_histograms(
    values: NDArray[np.float32],
    owners: NDArray[np.int64],
    *,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Count the values of each feature in equal-width bins from its lowest to its highest value.

    Bins are closed on the left, the last one on both sides: exactly `numpy.histogram` of the values in double
    precision. Where lowest and highest are equal the bins have no width and all counts are in the last one.

    Args:
        values: Non-zero activations; shape [n].
        owners: Feature of each value, 0..n_features-1; shape [n].
        low: Lowest value of each feature; shape [n_features].
        high: Highest value; shape [n_features].

    Returns:
        Counts; shape [n_features, HISTOGRAM_BINS].
    """
    bottom, width = low.astype(np.float64), high.astype(np.float64) - low
    scale = np.divide(HISTOGRAM_BINS, width, out=np.zeros(len(low)), where=width > 0)
    place = (values - bottom[owners]) * scale[owners]
    bins = np.minimum(place.astype(np.int64), HISTOGRAM_BINS - 1)
    doubtful = np.flatnonzero(np.abs(place - np.rint(place)) < _NEAR)
    if len(doubtful):
        edges = np.linspace(bottom, high.astype(np.float64), HISTOGRAM_BINS + 1, axis=1)
        bins[doubtful] = _by_edges(edges, owners[doubtful], values[doubtful], place[doubtful])
    bins[width[owners] == 0] = HISTOGRAM_BINS - 1
    n_features = len(low)
    counts = np.bincount(owners * HISTOGRAM_BINS + bins, minlength=n_features * HISTOGRAM_BINS)
    return counts.reshape(n_features, HISTOGRAM_BINS)


def _by_edges(
    edges: NDArray[np.float64],
    owners: NDArray[np.int64],
    values: NDArray[np.float32],
    place: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Bins of values that lie next to an edge: compare with the edge itself."""
    nearest = np.rint(place).astype(np.int64)
    bins = np.where(values >= edges[owners, nearest], nearest, nearest - 1)
    return np.clip(bins, 0, HISTOGRAM_BINS - 1)
