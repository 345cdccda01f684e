"""Units: one feature on one context. Examples are chosen among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.gather import FeatureBlock
from interpedia_shared.dashboards import N_INTERVALS


@dataclass(frozen=True, slots=True)
class Units:
    """All (feature, context) pairs of a block with at least one activation, sorted by (feature, row)."""

    features: NDArray[np.int64]  # [n] from 0 in the block
    rows: NDArray[np.int64]  # [n]
    starts: NDArray[np.int64]  # [n] first activation in the block
    lengths: NDArray[np.int64]  # [n] number of activations
    peaks: NDArray[np.float32]  # [n] largest magnitude

    def __len__(self) -> int:
        return len(self.rows)


def make_units(block: FeatureBlock, context_length: int) -> Units:
    """Join the activations of a feature on a context."""
    rows = block.tokens // np.uint32(context_length)
    is_start = np.empty(len(rows), np.bool_)
    is_start[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=is_start[1:])
    is_start[block.offsets[:-1][block.counts > 0]] = True
    starts = np.flatnonzero(is_start)
    lengths = np.diff(np.concatenate((starts, [len(rows)])))
    peaks = np.maximum.reduceat(np.abs(block.values), starts) if len(starts) else np.zeros(0, np.float32)
    per_feature = np.diff(np.searchsorted(starts, block.offsets))
    return Units(
        features=np.repeat(np.arange(len(block)), per_feature),
        rows=rows[starts].astype(np.int64),
        starts=starts,
        lengths=lengths,
        peaks=peaks,
    )


def intervals(peaks: NDArray[np.float32], largest: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of the intervals of equal width that divide (0, largest] each peak lies in, from 1; exact at the
    edges.

    A peak on an edge belongs to the interval below it.

    Args:
        peaks: Positive; shape [n].
        largest: The largest peak of the same feature; shape [n].
    """
    # Five times a float32 is exact in double precision, and so are the comparisons below.
    scaled, top = N_INTERVALS * peaks.astype(np.float64), largest.astype(np.float64)
    found = np.ceil(scaled / top)
    found += scaled > found * top
    found -= scaled <= (found - 1) * top
    return np.clip(found, 1, N_INTERVALS).astype(np.int64)
