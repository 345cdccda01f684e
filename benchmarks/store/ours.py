"""Our schema: a row per feature, sparse examples in a blob, contexts once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import SecretStr

from benchmarks.catalogue import (
    Dictionary,
    Registered,
    Subject,
    copy_contexts,
    copy_features,
    register,
    stored_bytes,
)
from benchmarks.store.meter import Load, Meter
from benchmarks.store.synthetic import CONTEXT_LENGTH, N_VOCABULARY, Shape, features, vocabulary
from interpedia_ingest.dashboards.result import feature_row
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_shared.dashboards import decode_examples, decode_stats
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.tokens import token_width, unpack_ids

LOG = logging.getLogger("bench.store")
MODEL = "bench-model"
RANGE = 1024
"""Features in one COPY: the ingest worker's default."""
PART = 8 * RANGE
"""Features in one turn. The whole is 36 turns; the other schema's 8,192 features are 32."""
WIDTH = token_width(N_VOCABULARY)


def sae_slug(version: int) -> str:
    """Id of one of the SAEs."""
    return f"{version}-res-24k"


async def prepare(url: str, shape: Shape) -> Registered:
    """Register a model, a corpus and the SAEs."""
    database = Database(DatabaseSettings(url=SecretStr(url)))
    try:
        return await register(
            database, _subject(shape), [_dictionary(shape, n) for n in range(shape.n_versions)]
        )
    finally:
        await database.dispose()


def _subject(shape: Shape) -> Subject:
    return Subject(
        model=MODEL,
        model_shape={
            "n_layers": 12,
            "d_model": 768,
            "d_mlp": 3072,
            "n_heads": 12,
            "d_head": 64,
            "d_vocab": N_VOCABULARY,
            "architecture": "gpt2",
        },
        vocabulary=vocabulary(),
        context_length=CONTEXT_LENGTH,
        n_contexts=shape.n_contexts,
        settings=DashboardSettings(k_top=shape.n_examples, per_interval=1, n_random=0).to_json(),
    )


def _dictionary(shape: Shape, version: int) -> Dictionary:
    return Dictionary(
        slug=sae_slug(version),
        architecture="jumprelu",
        hook=f"blocks.{version}.hook_resid_pre",
        layer=version,
        d_in=768,
        d_sae=shape.features_per_version,
    )


async def load(
    url: str, shape: Shape, registered: Registered, tokens: NDArray[np.uint32], *, turns: asyncio.Lock
) -> Load:
    """Pack and COPY everything, range by range; making up the features is not counted.

    `turns` is held for one part at a time.
    """
    connection = await asyncpg.connect(url)
    try:
        meter = await Meter.of(connection)
        async with turns:
            with meter.phase("copy"):
                await copy_contexts(connection, registered.corpus_id, tokens, WIDTH)
        for version in range(shape.n_versions):
            version_id = registered.version_ids[sae_slug(version)]
            for part in cut(range(shape.features_per_version), PART):
                async with turns:
                    for rows in cut(part, RANGE):
                        results = list(features(shape, version, rows, tokens))
                        with meter.phase("pack"):
                            packed = [feature_row(result) for result in results]
                        with meter.phase("copy"):
                            await copy_features(connection, version_id, packed)
            LOG.info("ours: SAE %d of %d: %s", version + 1, shape.n_versions, meter.wall)
        async with turns:
            with meter.phase("copy"):
                await connection.execute("ANALYZE feature")
        return meter.load(shape.n_features, await stored_bytes(connection, "feature", "context"))
    finally:
        await connection.close()


def cut(rows: range, size: int) -> Iterator[range]:
    """The same rows in ranges of at most `size`."""
    for first in range(rows.start, rows.stop, size):
        yield range(first, min(first + size, rows.stop))


async def lookup(
    connection: asyncpg.Connection, registered: Registered, shown: Sequence[str], *, version: int, index: int
) -> bytes:
    """One dashboard by plain SQL and the codec, as JSON: an answer without the gateway."""
    row: Any = await connection.fetchrow(
        "SELECT * FROM feature WHERE sae_version_id = $1 AND idx = $2",
        registered.version_ids[sae_slug(version)],
        index,
    )
    examples = decode_examples(row["examples"])
    contexts = await connection.fetch(
        "SELECT idx, tokens FROM context WHERE corpus_id = $1 AND idx = ANY($2::int[])",
        registered.corpus_id,
        examples.contexts.tolist(),
    )
    ids = {context["idx"]: unpack_ids(context["tokens"], WIDTH).tolist() for context in contexts}
    answer: list[dict[str, Any]] = []
    for number, positions, values in examples.rows():
        tokens = ids[int(examples.contexts[number])]
        row_values = np.zeros(len(tokens), np.float32)
        row_values[positions] = values
        answer.append({"tokens": [shown[token] for token in tokens], "values": row_values.tolist()})
    stats = decode_stats(row["stats"])
    numbers = {
        "density": row["density"],
        "max_activation": row["max_activation"],
        "activation_histogram": stats.activation_histogram.counts.tolist(),
        "logit_histogram": stats.logit_histogram.counts.tolist(),
        "top_logits": _shown(shown, stats.top_logits.ids.tolist(), stats.top_logits.values.tolist()),
        "bottom_logits": _shown(shown, stats.bottom_logits.ids.tolist(), stats.bottom_logits.values.tolist()),
        "neighbours": stats.cosine_neighbours.ids.tolist(),
    }
    return orjson.dumps({"feature": index, **numbers, "examples": answer})


def _shown(shown: Sequence[str], ids: list[int], values: list[float]) -> list[list[Any]]:
    return [[shown[token], value] for token, value in zip(ids, values, strict=True)]
