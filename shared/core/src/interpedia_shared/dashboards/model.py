"""The stored parts of a dashboard, as plain arrays.

Units: activations are in the SAE's own scale, logits in nats, positions count from the first token of the
context (BOS included), contexts are row numbers of the corpus, features are indices in the SAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HISTOGRAM_BINS = 50
N_INTERVALS = 5

REASON_TOP = 0
"""The example is among those with the highest activation. Intervals are reasons 1 (lowest) to N_INTERVALS."""
REASON_RANDOM = 255
"""A random context on which the feature is silent."""


def _u32() -> NDArray[np.uint32]:
    return np.zeros(0, np.uint32)


def _f32() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Equal-width bins from `low` to `high`; no counts at all when there was nothing to count."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.uint32] = field(default_factory=_u32)  # [HISTOGRAM_BINS] or [0]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ids (tokens or features) with a value each, best first.

    A stored value is off by at most 1/65,500 of the largest magnitude of its list; ids are exact.
    """

    ids: NDArray[np.uint32] = field(default_factory=_u32)  # [n]
    values: NDArray[np.float32] = field(default_factory=_f32)  # [n]


@dataclass(frozen=True, slots=True)
class Coactive:
    """Features that fire together with this one: Pearson r over counted tokens, and how often both fire.

    A stored r is off by at most 1/65,500; ids and counts are exact.
    """

    ids: NDArray[np.uint32] = field(default_factory=_u32)  # [n]
    pearson: NDArray[np.float32] = field(default_factory=_f32)  # [n], -1..1
    counts: NDArray[np.uint32] = field(default_factory=_u32)  # [n] tokens on which both are non-zero


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """All numbers of a feature that nobody filters by. Sums run over the tokens on which it is non-zero.

    `interval_counts[k-1]` is the number of contexts whose maximum lies in interval k, of equal width between
    0 and the feature's maximum (absolute values for architectures with negative activations).
    """

    n_active_tokens: int = 0
    n_active_contexts: int = 0
    activation_sum: float = 0.0
    activation_sum_squares: float = 0.0
    min_activation: float = 0.0
    max_activation: float = 0.0
    interval_counts: NDArray[np.uint32] = field(default_factory=_u32)  # [N_INTERVALS] or [0]
    activation_histogram: Histogram = field(default_factory=Histogram)
    logit_histogram: Histogram = field(default_factory=Histogram)
    top_logits: Ranked = field(default_factory=Ranked)
    bottom_logits: Ranked = field(default_factory=Ranked)
    cosine_neighbours: Ranked = field(default_factory=Ranked)
    coactive: Coactive = field(default_factory=Coactive)


@dataclass(frozen=True, slots=True)
class Examples:
    """The kept contexts of one feature with its sparse activations on them.

    Example e owns the slice `offsets[e]:offsets[e + 1]` of `positions` and `values`.
    The relative error of a stored value is below 2**-11.
    """

    contexts: NDArray[np.uint32]  # [n] row number in the corpus
    reasons: NDArray[np.uint8]  # [n] REASON_TOP, 1..N_INTERVALS, REASON_RANDOM
    repeats: NDArray[np.bool_]  # [n] the text around the peak was already seen in an earlier example
    offsets: NDArray[np.uint32]  # [n + 1]
    positions: NDArray[np.uint16]  # [nnz] ascending within an example
    values: NDArray[np.float32]  # [nnz]

    @classmethod
    def empty(cls) -> Examples:
        """No examples: what a dead feature has besides random contexts."""
        return cls(
            contexts=_u32(),
            reasons=np.zeros(0, np.uint8),
            repeats=np.zeros(0, np.bool_),
            offsets=np.zeros(1, np.uint32),
            positions=np.zeros(0, np.uint16),
            values=_f32(),
        )

    def __len__(self) -> int:
        return len(self.contexts)

    def rows(self) -> Iterator[tuple[int, NDArray[np.uint16], NDArray[np.float32]]]:
        """Yield (example number, positions, values) in stored order."""
        for number in range(len(self.contexts)):
            part = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
            yield number, self.positions[part], self.values[part]
