"""Which contexts of a feature are kept as examples, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.gather import FeatureBlock
from interpedia_ingest.dashboards.groups import (
    largest_per_group,
    slices,
    smallest_hashes_by_row,
    smallest_hashes_per_group,
)
from interpedia_ingest.dashboards.hashing import Purpose, seeded_hash
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.units import Units
from interpedia_shared.dashboards import N_INTERVALS, REASON_RANDOM, REASON_TOP, Examples


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the choice of examples needs to know of the selected contexts."""

    selection: Selection
    contents: NDArray[np.int64]
    """[n_rows] the first row with the same token ids."""
    is_repeated: NDArray[np.bool_]
    """[n_rows] another row has the same token ids."""
    eligible: NDArray[np.int64]
    """Rows that may stand as random contexts: something counts, and no earlier row has the same ids."""

    @classmethod
    def of(cls, selection: Selection, counted: NDArray[np.bool_]) -> Contexts:
        """Look for repeated contexts.

        Args:
            selection: The contexts of the build.
            counted: Which positions count; shape [n_rows, context_length].
        """
        ids = np.ascontiguousarray(selection.tokens)
        whole = ids.view(np.dtype((np.void, ids.dtype.itemsize * ids.shape[1])))[:, 0]
        _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
        contents = first[inverse].astype(np.int64)
        is_repeated = np.bincount(contents, minlength=selection.n_rows)[contents] > 1
        is_eligible = (contents == np.arange(selection.n_rows)) & counted.any(axis=1)
        return cls(selection, contents, is_repeated, np.flatnonzero(is_eligible))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Kept examples of a block, sorted by feature and by the order in which they are shown."""

    features: NDArray[np.int64]  # [n]
    rows: NDArray[np.int64]  # [n]
    reasons: NDArray[np.uint8]  # [n]
    units: NDArray[np.int64]  # [n] index in Units, -1 for a random context


@dataclass(frozen=True, slots=True)
class BlockExamples:
    """The examples of all features of a block, one after the other."""

    bounds: NDArray[np.int64]  # [n_features + 1] feature i owns the examples [i]:[i + 1]
    merged: Examples
    peak_positions: NDArray[np.int64]
    """[n] where the largest magnitude is first reached; -1 for a random context."""
    peak_tokens: NDArray[np.int64]
    """[n] the token id there; -1 for a random context."""

    def __iter__(self) -> Iterator[Examples]:
        """The examples of one feature after the other."""
        all_of = self.merged
        for first, stop in zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True):
            offsets = all_of.offsets[first : stop + 1]
            part = slice(int(offsets[0]), int(offsets[-1]))
            yield Examples(
                contexts=all_of.contexts[first:stop],
                reasons=all_of.reasons[first:stop],
                repeats=all_of.repeats[first:stop],
                offsets=offsets - offsets[0],
                positions=all_of.positions[part],
                values=all_of.values[part],
            )


def choose_examples(
    block: FeatureBlock,
    units: Units,
    unit_intervals: NDArray[np.int64],
    *,
    contexts: Contexts,
    settings: DashboardSettings,
) -> BlockExamples:
    """Choose the examples of every feature of a block.

    Of contexts with the same token ids only the highest ranked can be kept. Kept are, in this order: the
    `k_top` contexts with the highest peaks, ties by row; of the others up to `per_interval` of each interval,
    chosen by hash, shown from the highest interval down and by peak; `n_random` contexts on which the feature
    is silent, chosen by hash, shown by row. An example repeats an earlier one of its feature when the tokens
    around the two peaks are the same.
    """
    chosen = _choose(block, units, unit_intervals, contexts=contexts, settings=settings)
    has_unit = chosen.units >= 0
    lengths = np.where(has_unit, units.lengths[chosen.units] if len(units) else 0, 0)
    starts = np.where(has_unit, units.starts[chosen.units] if len(units) else 0, 0)
    taken = slices(starts, lengths)
    positions = block.tokens[taken] % np.uint32(contexts.selection.context_length)
    values = block.values[taken]
    peak_positions = _first_peaks(positions, values, lengths)
    tokens = contexts.selection.tokens[chosen.rows, np.maximum(peak_positions, 0)].astype(np.int64)
    merged = Examples(
        contexts=contexts.selection.contexts[chosen.rows].astype(np.uint32),
        reasons=chosen.reasons,
        repeats=_repeats(chosen, peak_positions, contexts.selection, window=settings.repeat_window),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.uint32),
        positions=positions.astype(np.uint16),
        values=values,
    )
    return BlockExamples(
        bounds=np.searchsorted(chosen.features, np.arange(len(block) + 1)),
        merged=merged,
        peak_positions=peak_positions,
        peak_tokens=np.where(has_unit, tokens, -1),
    )


def _choose(
    block: FeatureBlock,
    units: Units,
    unit_intervals: NDArray[np.int64],
    *,
    contexts: Contexts,
    settings: DashboardSettings,
) -> _Chosen:
    candidates = np.flatnonzero(_is_best_of_its_content(units, contexts))
    ranked = largest_per_group(
        units.peaks[candidates], units.features[candidates], n_groups=len(block), k=settings.k_top
    )
    top = candidates[ranked]
    is_other = np.zeros(len(units), np.bool_)
    is_other[candidates] = True
    is_other[top] = False
    others = np.flatnonzero(is_other)
    sampled = others[
        smallest_hashes_per_group(
            seeded_hash(
                settings.seed,
                Purpose.EXAMPLE,
                units.features[others] + block.features.start,
                contexts.selection.contexts[units.rows[others]],
            ),
            units.features[others] * N_INTERVALS + unit_intervals[others] - 1,
            n_groups=len(block) * N_INTERVALS,
            k=settings.per_interval,
        )
    ]
    silent_features, silent_rows = _silent(block, units, contexts=contexts, settings=settings)
    kept = np.concatenate((top, sampled))
    reasons = np.concatenate((np.full(len(top), REASON_TOP), unit_intervals[sampled]))
    return _in_order(
        _Chosen(
            features=np.concatenate((units.features[kept], silent_features)),
            rows=np.concatenate((units.rows[kept], silent_rows)),
            reasons=np.concatenate((reasons, np.full(len(silent_rows), REASON_RANDOM))).astype(np.uint8),
            units=np.concatenate((kept, np.full(len(silent_rows), -1))),
        ),
        units,
    )


def _is_best_of_its_content(units: Units, contexts: Contexts) -> NDArray[np.bool_]:
    """False for units whose feature has a higher one (or an equal one earlier) on the very same token ids."""
    is_best = np.ones(len(units), np.bool_)
    doubtful = np.flatnonzero(contexts.is_repeated[units.rows])
    contents = contexts.contents[units.rows[doubtful]]
    features = units.features[doubtful]
    order = np.lexsort((-units.peaks[doubtful], contents, features))
    same = (contents[order][1:] == contents[order][:-1]) & (features[order][1:] == features[order][:-1])
    is_best[doubtful[order[1:][same]]] = False
    return is_best


def _silent(
    block: FeatureBlock, units: Units, *, contexts: Contexts, settings: DashboardSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Features and rows of the random contexts."""
    is_silent = np.ones((len(block), contexts.selection.n_rows), np.bool_)
    is_silent[units.features, units.rows] = False
    hashes = seeded_hash(
        settings.seed,
        Purpose.RANDOM_CONTEXT,
        np.arange(block.features.start, block.features.stop)[:, None],
        contexts.selection.contexts[contexts.eligible],
    )
    features, places = smallest_hashes_by_row(hashes, is_silent[:, contexts.eligible], k=settings.n_random)
    return features, contexts.eligible[places]


def _in_order(chosen: _Chosen, units: Units) -> _Chosen:
    reasons = chosen.reasons.astype(np.int64)
    shown = np.where(reasons == REASON_TOP, 0, N_INTERVALS + 1 - reasons)
    shown[reasons == REASON_RANDOM] = N_INTERVALS + 1
    peaks = np.zeros(len(reasons), np.float32)
    has_unit = chosen.units >= 0
    peaks[has_unit] = units.peaks[chosen.units[has_unit]]
    order = np.lexsort((chosen.rows, -peaks, shown, chosen.features))
    return _Chosen(
        features=chosen.features[order],
        rows=chosen.rows[order],
        reasons=chosen.reasons[order],
        units=chosen.units[order],
    )


def _first_peaks(
    positions: NDArray[np.uint32], values: NDArray[np.float32], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Position of the first largest magnitude of each example; -1 where there is no activation."""
    peaks = np.full(len(lengths), -1)
    filled = np.flatnonzero(lengths)
    if len(filled) == 0:
        return peaks
    magnitudes = np.abs(values)
    starts = (np.cumsum(lengths) - lengths)[filled]
    largest = np.maximum.reduceat(magnitudes, starts)
    at_peak = np.flatnonzero(magnitudes == np.repeat(largest, lengths[filled]))
    peaks[filled] = positions[at_peak[np.searchsorted(at_peak, starts)]]
    return peaks


def _repeats(
    chosen: _Chosen, peak_positions: NDArray[np.int64], selection: Selection, *, window: int
) -> NDArray[np.bool_]:
    """True where the tokens around the peak are those around an earlier peak of the same feature."""
    repeats = np.zeros(len(chosen.rows), np.bool_)
    active = np.flatnonzero(chosen.units >= 0)
    around = peak_positions[active, None] + np.arange(-window, window + 1)
    inside = (around >= 0) & (around < selection.context_length)
    ids = selection.tokens[chosen.rows[active, None], np.where(inside, around, 0)].astype(np.int64)
    keys = np.where(inside, ids + 1, 0)
    hashes = seeded_hash(0, Purpose.WINDOW, chosen.features[active], *keys.T)
    _, first = np.unique(hashes, return_index=True)
    repeats[active] = True
    repeats[active[first]] = False
    return repeats
