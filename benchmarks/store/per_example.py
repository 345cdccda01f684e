"""The other way: a row per example, token strings and values as arrays, keyed by text.

The tables have the shape of Neuronpedia's public schema, less the columns that would be empty here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.catalogue import stored_bytes
from benchmarks.store.meter import Load, Meter
from benchmarks.store.ours import MODEL, cut, sae_slug
from benchmarks.store.synthetic import CONTEXT_LENGTH, Shape, features, vocabulary
from interpedia_ingest.dashboards.result import FeatureResult
from interpedia_shared.dashboards import Histogram, Ranked

LOG = logging.getLogger("bench.store")
CHUNK = 256
"""Features in one COPY; their 5,120 examples are some 40 MB in the client."""

SCHEMA = """
CREATE TABLE neuron (
    model_id text, layer text, index text,
    frac_nonzero float8, max_act float8,
    pos_str text[], pos_values float8[], neg_str text[], neg_values float8[],
    freq_hist_bar_values float8[], freq_hist_bar_heights float8[],
    logits_hist_bar_values float8[], logits_hist_bar_heights float8[],
    similar_indices int[], similar_values float8[],
    PRIMARY KEY (model_id, layer, index)
);
CREATE TABLE activation (
    id text PRIMARY KEY,
    model_id text, layer text, index text,
    tokens text[], token_values float8[],
    max_value float8, max_value_token_index int, min_value float8
);
CREATE INDEX activation_feature ON activation (model_id, layer, index);
"""
NEURON_COLUMNS = (
    *("model_id", "layer", "index", "frac_nonzero", "max_act"),
    *("pos_str", "pos_values", "neg_str", "neg_values"),
    *("freq_hist_bar_values", "freq_hist_bar_heights", "logits_hist_bar_values", "logits_hist_bar_heights"),
    *("similar_indices", "similar_values"),
)
ACTIVATION_COLUMNS = (
    *("id", "model_id", "layer", "index", "tokens", "token_values"),
    *("max_value", "max_value_token_index", "min_value"),
)


async def load(
    url: str, shape: Shape, n_features: int, tokens: NDArray[np.uint32], *, turns: asyncio.Lock
) -> Load:
    """Load the first features of the first SAE: the same features as ours. `turns` is held chunk by chunk."""
    connection = await asyncpg.connect(url)
    names = [token.decode() for token in vocabulary()]
    try:
        await connection.execute(SCHEMA)
        meter = await Meter.of(connection)
        for rows in cut(range(n_features), CHUNK):
            async with turns:
                results = list(features(shape, 0, rows, tokens))
                with meter.phase("pack"):
                    neurons = [_neuron(result, names) for result in results]
                    activations = [row for result in results for row in _activations(result, tokens, names)]
                with meter.phase("copy"):
                    await connection.copy_records_to_table("neuron", records=neurons, columns=NEURON_COLUMNS)
                    await connection.copy_records_to_table(
                        "activation", records=activations, columns=ACTIVATION_COLUMNS
                    )
            if rows.start % 2048 == 0:
                LOG.info("row per example: %d of %d features: %s", rows.stop, n_features, meter.wall)
        async with turns:
            with meter.phase("copy"):
                await connection.execute("ANALYZE neuron, activation")
        return meter.load(n_features, await stored_bytes(connection, "neuron", "activation"))
    finally:
        await connection.close()


def _neuron(result: FeatureResult, names: list[str]) -> tuple[Any, ...]:
    stats = result.stats
    return (
        MODEL,
        sae_slug(0),
        str(result.index),
        result.density,
        result.max_activation,
        *_strings(stats.top_logits, names),
        *_strings(stats.bottom_logits, names),
        *_bars(stats.activation_histogram),
        *_bars(stats.logit_histogram),
        stats.cosine_neighbours.ids.tolist(),
        stats.cosine_neighbours.values.tolist(),
    )


def _strings(ranked: Ranked, names: list[str]) -> tuple[list[str], list[float]]:
    return [names[token] for token in ranked.ids.tolist()], _rounded(ranked.values)


def _rounded(values: NDArray[np.floating[Any]]) -> list[float]:
    """Three decimals, as the peer stores them: short numbers compress."""
    rounded: list[float] = np.round(values.astype(np.float64), 3).tolist()
    return rounded


def _bars(histogram: Histogram) -> tuple[list[float], list[float]]:
    n = len(histogram.counts)
    edges = np.linspace(histogram.low, histogram.high, n + 1)
    return _rounded((edges[:-1] + edges[1:]) / 2), histogram.counts.astype(np.float64).tolist()


def _activations(
    result: FeatureResult, tokens: NDArray[np.uint32], names: list[str]
) -> Iterator[tuple[Any, ...]]:
    for number, positions, values in result.examples.rows():
        dense = np.zeros(CONTEXT_LENGTH, np.float32)
        dense[positions] = values
        shown = dense[1:]  # the peer leaves BOS out
        peak = int(shown.argmax())
        yield (
            f"{result.index:08x}{number:04x}bench0000000",
            MODEL,
            sae_slug(0),
            str(result.index),
            [names[token] for token in tokens[result.examples.contexts[number], 1:].tolist()],
            _rounded(shown),
            float(shown[peak]),
            peak,
            0.0,
        )


async def lookup(connection: asyncpg.Connection, *, index: int) -> bytes:
    """One dashboard by plain SQL, as JSON."""
    key = (MODEL, sae_slug(0), str(index))
    neuron: Any = await connection.fetchrow(
        "SELECT * FROM neuron WHERE model_id = $1 AND layer = $2 AND index = $3", *key
    )
    activations = await connection.fetch(
        "SELECT * FROM activation WHERE model_id = $1 AND layer = $2 AND index = $3 ORDER BY max_value DESC",
        *key,
    )
    return orjson.dumps({**dict(neuron), "activations": [dict(row) for row in activations]})
