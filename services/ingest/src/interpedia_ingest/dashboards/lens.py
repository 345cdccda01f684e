"""Logit lens: which tokens a feature's decoder direction promotes and suppresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.logit_lens import logit_effects, residual_directions
from interpedia_engine.models.language_model import LanguageModel
from interpedia_ingest.dashboards.errors import NotFinite
from interpedia_ingest.dashboards.ranking import top_per_row
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.target import Target
from interpedia_shared.dashboards import HISTOGRAM_BINS, Histogram, Ranked

LogitEffects = Callable[[range], Float[Tensor, "n d_vocab"]]
"""Gives the effect of some features' directions on all logits, in nats per unit of activation."""


@dataclass(frozen=True, slots=True)
class LensRow:
    """The logit lens of one feature; all empty for a feature that moves no logit."""

    top: Ranked
    bottom: Ranked
    histogram: Histogram


def lens_rows(effects: Float[Tensor, "n d_vocab"], k: int) -> list[LensRow]:
    """Reduce logit effects to the k most promoted and suppressed tokens and a histogram over the vocabulary.

    Ties go to the lower token id. The histogram has equal-width bins between lowest and highest effect, in
    single precision (a logit within rounding of an edge may be counted next door, as in `torch.histc`).

    Raises:
        NotFinite: an effect is NaN or infinite.
    """
    scores = effects.float().contiguous()
    top_ids, top_values = top_per_row(scores, k)
    bottom_ids, bottom_values = top_per_row(scores, k, largest=False)
    low, high = bottom_values[:, 0], top_values[:, 0]
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise NotFinite("logits", "a decoder direction has an effect that is NaN or infinite")
    counts = _histograms(scores.cpu().numpy(), low.cpu().numpy(), high.cpu().numpy())
    tops, bottoms = _ranked(top_ids, top_values), _ranked(bottom_ids, bottom_values)
    rows: list[LensRow] = []
    ends = zip(low.tolist(), high.tolist(), strict=True)
    for number, (first, last) in enumerate(ends):
        if first == last:
            rows.append(LensRow(Ranked(), Ranked(), Histogram()))
            continue
        histogram = Histogram(first, last, counts[number])
        rows.append(LensRow(tops[number], bottoms[number], histogram))
    return rows


def _ranked(ids: Tensor, values: Tensor) -> list[Ranked]:
    all_ids = ids.cpu().numpy().astype(np.uint32)
    all_values = values.cpu().numpy()
    return [Ranked(one, value) for one, value in zip(all_ids, all_values, strict=True)]


def _histograms(
    scores: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.uint32]:
    """Counts per row; shape [n, HISTOGRAM_BINS]. Row by row, so that a row stays in the cache."""
    counts = np.zeros((len(scores), HISTOGRAM_BINS), np.uint32)
    place = np.empty(scores.shape[1], np.float32)
    bins = np.empty(scores.shape[1], np.int64)
    for number in np.flatnonzero(high > low).tolist():
        np.subtract(scores[number], low[number], out=place)
        np.multiply(place, np.float32(HISTOGRAM_BINS) / (high[number] - low[number]), out=place)
        np.copyto(bins, place, casting="unsafe")
        found = np.bincount(bins, minlength=HISTOGRAM_BINS + 1)
        found[HISTOGRAM_BINS - 1] += found[HISTOGRAM_BINS]  # the highest value itself
        counts[number] = found[:HISTOGRAM_BINS]
    return counts


def model_lens(model: LanguageModel, target: Target, settings: DashboardSettings) -> LogitEffects | None:
    """Make the logit effects of an SAE's decoder rows; None where a non-linearity lies in between.

    Rows of neurons and heads go through the module that writes them to the residual stream.
    """
    try:
        residual_directions(target.sae.decoder_rows(0, 1), target.hook_out, model)
    except UnsupportedHook:
        return None

    def effects(features: range) -> Float[Tensor, "n d_vocab"]:
        rows = target.sae.decoder_rows(features.start, features.stop)
        directions = residual_directions(rows, target.hook_out, model)
        return logit_effects(directions, model, settings.final_norm_gain)

    return effects
