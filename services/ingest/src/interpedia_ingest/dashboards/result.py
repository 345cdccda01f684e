"""The dashboard of one feature as the table `feature` holds it, and a digest over many."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.dashboards import Examples, FeatureStats, encode_examples, encode_stats


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """All that a build finds out about one feature."""

    index: int
    n_counted_tokens: int
    peak_context: int | None
    """Row in the corpus of the context with the largest magnitude; None for a dead feature."""
    peak_position: int | None
    peak_token_ids: tuple[int, ...]
    """Token ids at the peaks of the top examples, each once, by rank."""
    stats: FeatureStats
    examples: Examples

    @property
    def density(self) -> float:
        """Share of the counted tokens on which the feature is non-zero, 0..1."""
        return self.stats.n_active_tokens / self.n_counted_tokens

    @property
    def max_activation(self) -> float:
        """Largest magnitude; 0 for a dead feature."""
        return max(abs(self.stats.min_activation), abs(self.stats.max_activation))

    @property
    def mean_activation(self) -> float:
        """Mean over the tokens on which the feature is non-zero, with signs; 0 for a dead feature."""
        return self.stats.activation_sum / max(1, self.stats.n_active_tokens)


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A row of the table `feature`, less the version it belongs to: the same names in the same order."""

    idx: int
    density: float
    n_active_tokens: int
    max_activation: float
    mean_activation: float
    peak_context: int | None
    peak_position: int | None
    top_logit_ids: list[int]
    peak_token_ids: list[int]
    stats: bytes
    examples: bytes


def feature_row(result: FeatureResult) -> FeatureRow:
    """Pack a result for storage."""
    return FeatureRow(
        idx=result.index,
        density=result.density,
        n_active_tokens=result.stats.n_active_tokens,
        max_activation=result.max_activation,
        mean_activation=result.mean_activation,
        peak_context=result.peak_context,
        peak_position=result.peak_position,
        top_logit_ids=result.stats.top_logits.ids.tolist(),
        peak_token_ids=list(result.peak_token_ids),
        stats=encode_stats(result.stats),
        examples=encode_examples(result.examples),
    )


class RowsDigest:
    """SHA-256 over rows in feature order; the same whether they come from a build or back from the table."""

    def __init__(self, first: int = 0) -> None:
        self._digest = hashlib.sha256()
        self._first = first
        self._next = first

    def add(self, row: FeatureRow) -> None:
        """Add the next row.

        Raises:
            ValueError: it is not the next one.
        """
        if row.idx != self._next:
            raise ValueError(f"feature {row.idx} comes where {self._next} is due")
        self._next += 1
        absent = -1
        self._digest.update(
            struct.pack(
                "<Idqddqq",
                row.idx,
                row.density,
                row.n_active_tokens,
                row.max_activation,
                row.mean_activation,
                absent if row.peak_context is None else row.peak_context,
                absent if row.peak_position is None else row.peak_position,
            )
        )
        for ids in (row.top_logit_ids, row.peak_token_ids):
            self._digest.update(struct.pack("<I", len(ids)) + _packed(ids))
        for blob in (row.stats, row.examples):
            self._digest.update(struct.pack("<Q", len(blob)) + blob)

    @property
    def n_rows(self) -> int:
        """Rows added so far."""
        return self._next - self._first

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        return self._digest.hexdigest()


def _packed(ids: list[int]) -> bytes:
    array: NDArray[np.int64] = np.asarray(ids, "<i8")
    return array.tobytes()
