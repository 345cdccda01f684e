"""From stored arrays to what callers read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_gateway.explanations.shown import Said
from interpedia_gateway.features.repository import ContextRow, SummaryRow
from interpedia_gateway.features.schemas import (
    CoactiveNeighbour,
    CosineNeighbour,
    DocumentOut,
    ExampleOut,
    FeatureSummary,
    HistogramOut,
    IntervalCount,
    IntervalOut,
    Moments,
    Reason,
    SparseActivations,
    TokenEffect,
    TokenOut,
)
from interpedia_gateway.vocabulary import Words
from interpedia_shared.dashboards import (
    N_INTERVALS,
    REASON_RANDOM,
    REASON_TOP,
    Examples,
    FeatureStats,
    Histogram,
    Ranked,
)
from interpedia_shared.ids import FeatureRef


def name_of(place: SAEPlace, index: int) -> dict[str, str | int]:
    """The members that every feature on the wire has."""
    ref = str(FeatureRef(place.model, place.sae, index))
    return {"ref": ref, "model": place.model, "sae": place.sae, "index": index}


def tokens(ids: list[int], words: Words) -> list[TokenOut]:
    """Token ids with their texts."""
    return [TokenOut(id=token_id, token=words.show(token_id)) for token_id in ids]


def summary(place: SAEPlace, row: SummaryRow, words: Words, said: Said) -> FeatureSummary:
    """A feature as lists show it."""
    return FeatureSummary(
        **name_of(place, row.idx),  # pyright: ignore[reportArgumentType]
        density=row.density,
        n_active_tokens=row.n_active_tokens,
        max_activation=row.max_activation,
        mean_activation=row.mean_activation,
        top_logits=tokens(row.top_logit_ids, words),
        peak_tokens=tokens(row.peak_token_ids, words),
        explanation=said.default,
        n_explanations=said.count,
    )


def effects(ranked: Ranked, words: Words) -> list[TokenEffect]:
    """Logit effects with the tokens' texts."""
    pairs = zip(ranked.ids.tolist(), ranked.values.tolist(), strict=True)
    return [TokenEffect(id=token_id, token=words.show(token_id), value=value) for token_id, value in pairs]


def histogram(stored: Histogram) -> HistogramOut:
    """A histogram with the edges of its bins."""
    counts = stored.counts.tolist()
    edges = np.linspace(stored.low, stored.high, len(counts) + 1).tolist() if counts else []
    return HistogramOut(edges=edges, counts=counts)


def moments(stats: FeatureStats) -> Moments | None:
    """Mean and standard deviation of the non-zero values."""
    if stats.n_active_tokens == 0:
        return None
    mean = stats.activation_sum / stats.n_active_tokens
    variance = stats.activation_sum_squares / stats.n_active_tokens - mean * mean
    return Moments(mean=mean, std=math.sqrt(max(0.0, variance)))


def largest(stats: FeatureStats) -> float:
    """The largest magnitude: the upper end of the intervals."""
    return max(abs(stats.max_activation), abs(stats.min_activation))


def interval(k: int, upper: float) -> IntervalOut:
    """Interval k of N_INTERVALS between 0 and `upper`."""
    return IntervalOut(k=k, low=upper * (k - 1) / N_INTERVALS, high=upper * k / N_INTERVALS)


def interval_counts(stats: FeatureStats) -> list[IntervalCount]:
    """All intervals with the number of contexts in each."""
    upper = largest(stats)
    return [
        IntervalCount(**interval(k, upper).model_dump(), n_contexts=count)
        for k, count in enumerate(stats.interval_counts.tolist(), start=1)
    ]


def nearest(place: SAEPlace, stats: FeatureStats) -> list[CosineNeighbour]:
    """Neighbours by decoder cosine."""
    ranked = stats.cosine_neighbours
    return [
        CosineNeighbour(**name_of(place, index), cosine=value)  # pyright: ignore[reportArgumentType]
        for index, value in zip(ranked.ids.tolist(), ranked.values.tolist(), strict=True)
    ]


def coactive(place: SAEPlace, stats: FeatureStats) -> list[CoactiveNeighbour]:
    """Neighbours by co-activation."""
    found = stats.coactive
    return [
        CoactiveNeighbour(**name_of(place, index), pearson=pearson, n_tokens=count)  # pyright: ignore[reportArgumentType]
        for index, pearson, count in zip(
            found.ids.tolist(), found.pearson.tolist(), found.counts.tolist(), strict=True
        )
    ]


def examples(
    stored: Examples, rows: Mapping[int, ContextRow], words: Words, upper: float
) -> list[ExampleOut]:
    """Examples with their text; `upper` is the upper end of the intervals."""
    shown: list[ExampleOut] = []
    contexts, reasons, repeats = stored.contexts.tolist(), stored.reasons.tolist(), stored.repeats.tolist()
    for number, positions, values in stored.rows():
        reason = reasons[number]
        row = rows.get(contexts[number])
        ids: list[int] = [] if row is None else row.ids.tolist()
        peak = _peak(values)
        shown.append(
            ExampleOut(
                context=contexts[number],
                reason=reason_name(reason),
                interval=interval(reason, upper) if REASON_TOP < reason < REASON_RANDOM else None,
                repeat=repeats[number],
                max_activation=None if peak is None else float(values[peak]),
                peak_position=None if peak is None else int(positions[peak]),
                text=words.text(ids),
                token_ids=ids,
                tokens=words.show_all(ids),
                activations=SparseActivations(positions=positions.tolist(), values=values.tolist()),
                document=_document(row),
            )
        )
    return shown


def reason_name(reason: int) -> Reason:
    """The word for a stored reason."""
    if reason == REASON_TOP:
        return "top"
    return "random" if reason == REASON_RANDOM else "interval"


def _peak(values: NDArray[np.float32]) -> int | None:
    return int(np.abs(values).argmax()) if len(values) else None


def _document(row: ContextRow | None) -> DocumentOut | None:
    if row is None or row.document is None:
        return None
    return DocumentOut(
        name=row.document, source=row.source or "", licence=row.licence or "", token_offset=row.token_offset
    )
