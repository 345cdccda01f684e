"""Reading a range of features back from all spills of a build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.spill import Spill


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """All non-zero activations of some consecutive features, sorted by (feature, row, position)."""

    features: range
    offsets: NDArray[np.int64]  # [n + 1] feature i owns the slice [i]:[i + 1]
    tokens: NDArray[np.uint32]  # [n_nonzero] row * context_length + position
    values: NDArray[np.float32]  # [n_nonzero]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Non-zero activations per feature; shape [n]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The feature, from 0 in this block, of every activation; shape [n_nonzero]."""
        return np.repeat(np.arange(len(self)), self.counts)

    def pieces(self, most: int) -> Iterator[FeatureBlock]:
        """Cut into blocks of at most `most` activations, or of a single feature."""
        first = 0
        while first < len(self):
            fitting = int(np.searchsorted(self.offsets, self.offsets[first] + most, side="right")) - 1
            stop = min(max(fitting, first + 1), len(self))
            part = slice(int(self.offsets[first]), int(self.offsets[stop]))
            yield FeatureBlock(
                features=self.features[first:stop],
                offsets=self.offsets[first : stop + 1] - self.offsets[first],
                tokens=self.tokens[part],
                values=self.values[part],
            )
            first = stop


def feature_counts(spills: Sequence[Spill]) -> NDArray[np.int64]:
    """Non-zero activations of every feature over all shards; shape [d_sae]."""
    total = np.zeros(spills[0].header.d_sae, np.int64)
    for spill in spills:
        total += np.diff(spill.feature_offsets)
    return total


def gather(spills: Sequence[Spill], features: range) -> FeatureBlock:
    """Read some features from all shards; the spills are in row order."""
    bounds = [spill.feature_offsets[features.start : features.stop + 1] for spill in spills]
    counts = [np.diff(part) for part in bounds]
    offsets = np.zeros(len(features) + 1, np.int64)
    np.cumsum(np.sum(counts, axis=0), out=offsets[1:])
    tokens = np.empty(int(offsets[-1]), np.uint32)
    values = np.empty(int(offsets[-1]), np.float32)
    filled = offsets[:-1].copy()
    for spill, bound, count in zip(spills, bounds, counts, strict=True):
        part = slice(int(bound[0]), int(bound[-1]))
        base = np.uint32(spill.header.first_row * spill.header.context_length)
        # Where each run of this shard starts in the result, minus where it starts in the shard.
        shift = np.repeat(filled - (bound[:-1] - bound[0]), count)
        place = np.arange(len(shift)) + shift
        tokens[place] = spill.arrays["tokens"][part] + base
        values[place] = spill.arrays["values"][part]
        filled += count
    return FeatureBlock(features, offsets, tokens, values)


def counted_tokens(spills: Sequence[Spill]) -> NDArray[np.bool_]:
    """Which positions count, over all shards; shape [n_rows, context_length]."""
    return np.concatenate([spill.counted() for spill in spills])
