"""One feature as one row: plain columns, the same for Parquet and NDJSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_gateway.features.rendering import moments, reason_name
from interpedia_gateway.features.repository import ContextRow, FeatureRow
from interpedia_gateway.vocabulary import Words
from interpedia_shared.dashboards import Examples, Histogram, Ranked, decode_examples, decode_stats

_INTS, _FLOATS, _TEXTS = pa.list_(pa.int32()), pa.list_(pa.float32()), pa.list_(pa.string())
_HISTOGRAM = pa.struct([("low", pa.float32()), ("high", pa.float32()), ("counts", _INTS)])
_LOGITS = pa.struct([("ids", _INTS), ("tokens", _TEXTS), ("values", _FLOATS)])
_EXAMPLE = pa.struct(
    [
        ("context", pa.int32()),
        ("reason", pa.string()),
        ("interval", pa.int8()),
        ("repeat", pa.bool_()),
        ("token_ids", _INTS),
        ("positions", _INTS),
        ("values", _FLOATS),
        ("document", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("ref", pa.string()),
        ("index", pa.int32()),
        ("density", pa.float64()),
        ("n_active_tokens", pa.int64()),
        ("n_active_contexts", pa.int64()),
        ("max_activation", pa.float64()),
        ("min_activation", pa.float64()),
        ("mean_activation", pa.float64()),
        ("std_activation", pa.float64()),
        ("interval_counts", _INTS),
        ("activation_histogram", _HISTOGRAM),
        ("logit_histogram", _HISTOGRAM),
        ("top_logits", _LOGITS),
        ("bottom_logits", _LOGITS),
        ("peak_token_ids", _INTS),
        ("peak_tokens", _TEXTS),
        ("nearest_indices", _INTS),
        ("nearest_cosines", _FLOATS),
        ("coactive_indices", _INTS),
        ("coactive_pearson", _FLOATS),
        ("coactive_tokens", _INTS),
        ("examples", pa.list_(_EXAMPLE)),
    ]
)


def contexts_of(rows: list[FeatureRow]) -> set[int]:
    """The contexts that some features' examples point into."""
    return {int(context) for row in rows for context in decode_examples(row.examples).contexts}


def export_row(
    place: SAEPlace, row: FeatureRow, contexts: Mapping[int, ContextRow], words: Words
) -> dict[str, Any]:
    """One feature's columns."""
    stats = decode_stats(row.stats)
    moment = moments(stats)
    return {
        "ref": f"{place.model}/{place.sae}/{row.idx}",
        "index": row.idx,
        "density": row.density,
        "n_active_tokens": row.n_active_tokens,
        "n_active_contexts": stats.n_active_contexts,
        "max_activation": row.max_activation,
        "min_activation": stats.min_activation,
        "mean_activation": row.mean_activation,
        "std_activation": None if moment is None else moment.std,
        "interval_counts": stats.interval_counts.tolist(),
        "activation_histogram": _histogram(stats.activation_histogram),
        "logit_histogram": _histogram(stats.logit_histogram),
        "top_logits": _logits(stats.top_logits, words),
        "bottom_logits": _logits(stats.bottom_logits, words),
        "peak_token_ids": row.peak_token_ids,
        "peak_tokens": words.show_all(row.peak_token_ids),
        "nearest_indices": stats.cosine_neighbours.ids.tolist(),
        "nearest_cosines": stats.cosine_neighbours.values.tolist(),
        "coactive_indices": stats.coactive.ids.tolist(),
        "coactive_pearson": stats.coactive.pearson.tolist(),
        "coactive_tokens": stats.coactive.counts.tolist(),
        "examples": _examples(decode_examples(row.examples), contexts),
    }


def _histogram(stored: Histogram) -> dict[str, Any]:
    return {"low": stored.low, "high": stored.high, "counts": stored.counts.tolist()}


def _logits(ranked: Ranked, words: Words) -> dict[str, Any]:
    ids = ranked.ids.tolist()
    return {"ids": ids, "tokens": words.show_all(ids), "values": ranked.values.tolist()}


def _examples(stored: Examples, contexts: Mapping[int, ContextRow]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for number, positions, values in stored.rows():
        context, reason = int(stored.contexts[number]), reason_name(int(stored.reasons[number]))
        row = contexts.get(context)
        shown.append(
            {
                "context": context,
                "reason": reason,
                "interval": int(stored.reasons[number]) if reason == "interval" else None,
                "repeat": bool(stored.repeats[number]),
                "token_ids": [] if row is None else row.ids.tolist(),
                "positions": positions.tolist(),
                "values": values.tolist(),
                "document": None if row is None else row.document,
                "source": None if row is None else row.source,
                "licence": None if row is None else row.licence,
            }
        )
    return shown
