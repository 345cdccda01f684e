"""From spill files to the dashboards of a range of features. No model is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interpedia_ingest.dashboards.coactivation import Coactivation, TokenSample
from interpedia_ingest.dashboards.errors import BadSelection, BadSpill, NothingCounted
from interpedia_ingest.dashboards.examples import BlockExamples, Contexts, choose_examples
from interpedia_ingest.dashboards.gather import FeatureBlock, counted_tokens, gather
from interpedia_ingest.dashboards.histograms import linear_histograms
from interpedia_ingest.dashboards.lens import LensRow, LogitEffects, lens_rows
from interpedia_ingest.dashboards.neighbours import CosineNeighbours
from interpedia_ingest.dashboards.result import FeatureResult
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.spill import Spill, check_spills
from interpedia_ingest.dashboards.units import intervals, make_units
from interpedia_ingest.dashboards.watch import Watch
from interpedia_shared.dashboards import (
    N_INTERVALS,
    REASON_TOP,
    Coactive,
    FeatureStats,
    Histogram,
    Ranked,
)

BLOCK = 128
"""Features that are worked on together. Blocks begin at multiples of it whatever range is asked for, so that
matrix products have the same shapes and give the same bits; ranges that do too waste nothing."""

_PIECE_NONZEROS = 4_000_000
_NO_WATCH = Watch()
_NO_LENS = LensRow(Ranked(), Ranked(), Histogram())


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Statistics of the features of a block, by feature."""

    n_tokens: list[int]
    n_contexts: list[int]
    sums: list[float]
    squares: list[float]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    interval_counts: NDArray[np.uint32]  # [n, N_INTERVALS]
    histograms: NDArray[np.uint32]  # [n, HISTOGRAM_BINS]


@dataclass(frozen=True, slots=True)
class _Relations:
    """What is known of the features of a block besides their activations, by feature."""

    lens: Sequence[LensRow]
    cosine: Sequence[Ranked]
    coactive: Sequence[Coactive]


class Reducer:
    """Reduces the spills of one SAE; holds what all ranges share, so keep it for the next range."""

    def __init__(
        self,
        spills: Sequence[Spill],
        selection: Selection,
        *,
        settings: DashboardSettings,
        weights: str | None = None,
        decoder: Float[Tensor, "d_sae d_out"] | None = None,
        logit_effects: LogitEffects | None = None,
    ) -> None:
        """Check that everything belongs together, and read the tokens that co-activation is computed on.

        Args:
            spills: All shards in row order, from `open_spill`.
            selection: The contexts of the build.
            settings: Those of the build.
            weights: Digest of the SAE's weights (`Target.weights`) that the spills must have been written
                with; None leaves that unchecked.
            decoder: Decoder rows; without them there are no nearest features.
            logit_effects: Called with blocks of at most 128 features; without it there is no logit lens.

        Raises:
            BadSpill: spills are missing, or belong to another build, to other weights or to other settings.
            BadSelection: the spills were made from other contexts.
            NothingCounted: no position counts.
        """
        check_spills(spills)
        _check_belonging(spills, selection, settings, weights)
        counted = counted_tokens(spills)
        self._n_counted = int(counted.sum())
        if self._n_counted == 0:
            raise NothingCounted("ignore_ids", f"none of {counted.size} positions counts")
        self._spills = spills
        self._selection = selection
        self._settings = settings
        self._contexts = Contexts.of(selection, counted)
        self._coactivation = Coactivation(spills, TokenSample.of(spills, selection, settings), settings)
        self._cosine = None if decoder is None else CosineNeighbours(decoder, settings.n_ranked)
        self._logit_effects = logit_effects

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self._spills[0].header.d_sae

    def reduce(self, features: range, watch: Watch = _NO_WATCH) -> Iterator[FeatureResult]:
        """Yield the results of a range of features in order; the same for any cut into ranges.

        Args:
            features: Indices with step 1; ranges that begin and end at multiples of 128 are the cheapest.
            watch: Progress in features; asked for cancellation after every block.

        Raises:
            BadSelection: the range is not within the SAE.
            BuildCancelled: the watch said so.
            NotFinite: a logit is NaN or infinite.
        """
        if not 0 <= features.start < features.stop <= self.d_sae or features.step != 1:
            raise BadSelection("features", f"{features} is not within 0..{self.d_sae}")
        for first in range(features.start // BLOCK * BLOCK, features.stop, BLOCK):
            block = range(first, min(first + BLOCK, self.d_sae))
            yield from (result for result in self._block(block) if result.index in features)
            watch.step(min(block.stop, features.stop) - features.start, len(features))

    def _block(self, features: range) -> Iterator[FeatureResult]:
        block = gather(self._spills, features)
        relations = _Relations(
            lens=self._lens(features),
            cosine=self._cosine.rows(features) if self._cosine else [Ranked()] * len(features),
            coactive=self._coactivation.rows(block),
        )
        done = 0
        for piece in block.pieces(_PIECE_NONZEROS):
            part = slice(done, done + len(piece))
            done += len(piece)
            yield from self._piece(
                piece,
                _Relations(relations.lens[part], relations.cosine[part], relations.coactive[part]),
            )

    def _lens(self, features: range) -> Sequence[LensRow]:
        if self._logit_effects is None:
            return [_NO_LENS] * len(features)
        return lens_rows(self._logit_effects(features), self._settings.n_ranked)

    def _piece(self, block: FeatureBlock, relations: _Relations) -> Iterator[FeatureResult]:
        units = make_units(block, self._selection.context_length)
        low, high = _extremes(block)
        unit_intervals = intervals(units.peaks, np.maximum(np.abs(low), np.abs(high))[units.features])
        numbers = _numbers(block, units.features, unit_intervals, low=low, high=high)
        chosen = choose_examples(
            block, units, unit_intervals, contexts=self._contexts, settings=self._settings
        )
        for place, examples in enumerate(chosen):
            context, position, tokens = _peaks(chosen, place)
            yield FeatureResult(
                index=block.features[place],
                n_counted_tokens=self._n_counted,
                peak_context=context,
                peak_position=position,
                peak_token_ids=tokens,
                stats=_stats(numbers, relations, place),
                examples=examples,
            )


def _check_belonging(
    spills: Sequence[Spill], selection: Selection, settings: DashboardSettings, weights: str | None
) -> None:
    first = spills[0].header
    # One file is enough: `check_spills` has found the same weights in all.
    if weights is not None and first.weights != weights:
        raise BadSpill(
            "weights", f"{spills[0].path.name} was written with weights {first.weights!r}, not {weights!r}"
        )
    if first.settings != settings.digest():
        raise BadSpill("settings", f"{spills[0].path.name} was written with other settings")
    if spills[-1].stop_row != selection.n_rows or first.context_length != selection.context_length:
        raise BadSelection(
            "contexts",
            f"spills hold {spills[-1].stop_row} contexts of {first.context_length} tokens, "
            f"the selection {selection.n_rows} of {selection.context_length}",
        )
    for spill in spills:
        if selection.digest(spill.header.first_row, spill.header.n_rows) != spill.header.rows:
            raise BadSelection("tokens", f"{spill.path.name} was made from other contexts")


def _extremes(block: FeatureBlock) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each feature; 0 where it is dead."""
    low, high = np.zeros(len(block), np.float32), np.zeros(len(block), np.float32)
    alive = block.counts > 0
    if alive.any():
        starts = block.offsets[:-1][alive]
        low[alive] = np.minimum.reduceat(block.values, starts)
        high[alive] = np.maximum.reduceat(block.values, starts)
    return low, high


def _numbers(
    block: FeatureBlock,
    unit_features: NDArray[np.int64],
    unit_intervals: NDArray[np.int64],
    *,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> _Numbers:
    owners, n = block.owners, len(block)
    exact = block.values.astype(np.float64)
    per_interval = np.bincount(unit_features * N_INTERVALS + unit_intervals - 1, minlength=n * N_INTERVALS)
    return _Numbers(
        n_tokens=block.counts.tolist(),
        n_contexts=np.bincount(unit_features, minlength=n).tolist(),
        sums=np.bincount(owners, exact, minlength=n).astype(np.float64).tolist(),
        squares=np.bincount(owners, exact * exact, minlength=n).astype(np.float64).tolist(),
        low=low,
        high=high,
        interval_counts=per_interval.reshape(n, N_INTERVALS).astype(np.uint32),
        histograms=linear_histograms(block.values, owners, low=low, high=high).astype(np.uint32),
    )


def _stats(numbers: _Numbers, relations: _Relations, place: int) -> FeatureStats:
    low, high = float(numbers.low[place]), float(numbers.high[place])
    lens = relations.lens[place]
    is_alive = numbers.n_tokens[place] > 0
    return FeatureStats(
        n_active_tokens=numbers.n_tokens[place],
        n_active_contexts=numbers.n_contexts[place],
        activation_sum=numbers.sums[place],
        activation_sum_squares=numbers.squares[place],
        min_activation=low,
        max_activation=high,
        interval_counts=numbers.interval_counts[place],
        activation_histogram=Histogram(low, high, numbers.histograms[place]) if is_alive else Histogram(),
        logit_histogram=lens.histogram,
        top_logits=lens.top,
        bottom_logits=lens.bottom,
        cosine_neighbours=relations.cosine[place],
        coactive=relations.coactive[place],
    )


def _peaks(chosen: BlockExamples, place: int) -> tuple[int | None, int | None, tuple[int, ...]]:
    """Context and position of the highest peak, and the distinct ids at the top examples' peaks."""
    first, stop = int(chosen.bounds[place]), int(chosen.bounds[place + 1])
    reasons = chosen.merged.reasons[first:stop]
    n_top = int((reasons == REASON_TOP).sum())
    if n_top == 0:
        return None, None, ()
    tokens = dict.fromkeys(chosen.peak_tokens[first : first + n_top].tolist())
    return int(chosen.merged.contexts[first]), int(chosen.peak_positions[first]), tuple(tokens)
