"""Numbers of a whole SAE on the corpus of a build."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.errors import NothingCounted
from interpedia_ingest.dashboards.gather import feature_counts
from interpedia_ingest.dashboards.spill import Spill, check_spills

DENSITY_EDGES: tuple[float, ...] = tuple(step / 4 for step in range(-28, 1))
"""Edges of the density histogram in powers of ten: quarters of a decade from 1e-7 to 1."""


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How well the SAE reconstructs, on the groups of contexts on which it was measured."""

    n_tokens: int
    r_squared: float
    """1 - Σ|y - ŷ|² / Σ|y - ȳ|², the mean ȳ taken by coordinate; sums over tokens and coordinates."""
    mean_squared_error: float
    """Per token and coordinate."""


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """Numbers of a whole SAE; stored in `sae_version.summary`."""

    n_contexts: int
    n_tokens: int
    """Positions that counted."""
    n_masked: int
    """Positions that did not: BOS, ignored ids and positions, norms above the limit."""
    mean_l0: float
    """Non-zero features on a counted token."""
    n_features: int
    n_dead: int
    """Features that were zero on all counted tokens."""
    density_edges: tuple[float, ...]
    """Powers of ten."""
    density_counts: tuple[int, ...]
    """Living features per bin, the outer ones take what lies beyond; bins are closed on the left."""
    reconstruction: Reconstruction | None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return dataclasses.asdict(self)


def summarise(spills: Sequence[Spill]) -> BuildSummary:
    """Sum up the shards of one SAE, in row order.

    Raises:
        BadSpill: they are not the whole of one build.
        NothingCounted: no position counts.
    """
    check_spills(spills)
    n_contexts = spills[-1].stop_row
    n_tokens = sum(spill.header.n_counted for spill in spills)
    n_positions = n_contexts * spills[0].header.context_length
    if n_tokens == 0:
        raise NothingCounted("ignore_ids", f"none of {n_positions} positions counts")
    counts = feature_counts(spills)
    return BuildSummary(
        n_contexts=n_contexts,
        n_tokens=n_tokens,
        n_masked=n_positions - n_tokens,
        mean_l0=int(counts.sum()) / n_tokens,
        n_features=len(counts),
        n_dead=int((counts == 0).sum()),
        density_edges=DENSITY_EDGES,
        density_counts=_density_counts(counts[counts > 0] / n_tokens),
        reconstruction=_reconstruction(spills),
    )


def _density_counts(densities: NDArray[np.float64]) -> tuple[int, ...]:
    n_bins = len(DENSITY_EDGES) - 1
    bins = np.searchsorted(np.array(DENSITY_EDGES), np.log10(densities), side="right") - 1
    return tuple(np.bincount(np.clip(bins, 0, n_bins - 1), minlength=n_bins).tolist())


def _reconstruction(spills: Sequence[Spill]) -> Reconstruction | None:
    sums = np.concatenate([spill.arrays["reconstruction_sums"] for spill in spills])
    means = np.concatenate([spill.arrays["reconstruction_means"] for spill in spills])
    # Group by group in row order, so that shards change no bit.
    n, errors, squares = (_in_order(column) for column in sums.T)
    total = np.array([_in_order(column) for column in means.T])
    if n == 0:
        return None
    spread = squares - float((total * total).sum()) / n
    if spread <= 0:
        return None
    return Reconstruction(
        n_tokens=int(n),
        r_squared=1 - errors / spread,
        mean_squared_error=errors / (n * len(total)),
    )


def _in_order(column: NDArray[np.float64]) -> float:
    return float(sum(column.tolist()))
