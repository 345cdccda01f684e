"""The database: as many explanations and features as a public model's SAEs have."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import SecretStr

from benchmarks.catalogue import Dictionary, Subject, register
from benchmarks.database import migrated
from benchmarks.search.texts import Material, explanations
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.embeddings.minilm import MODEL as ENCODER
from interpedia_shared.settings import DatabaseSettings

LOG = logging.getLogger("bench.search")
MODEL = "bench-model"
N_VOCABULARY = 49_152
N_RANKED = 10
BLOB = b"\x01" * 900
"""In place of statistics and examples, which no search reads; a real row has about as much."""
BUFFERS = "1GB"
SEED = 7
INDEX = "SELECT pg_get_indexdef('ix_explanation_embedding'::regclass)"
"""What the migration says."""
VERSION = 1
"""Of the data: another number is loaded anew."""
FEATURE_COLUMNS = (
    *("sae_version_id", "idx", "density", "n_active_tokens", "max_activation", "mean_activation"),
    *("top_logit_ids", "peak_token_ids", "stats", "examples"),
)
EXPLANATION_COLUMNS = (
    *("sae_id", "feature_idx", "text", "method", "account_id", "is_default", "best_score", "density"),
    *("release_id", "embedding", "embedding_model"),
)


@dataclass(frozen=True)
class Size:
    """How much there is."""

    n_saes: int = 12
    features_per_sae: int = 24_576

    @property
    def n_explanations(self) -> int:
        """One a feature."""
        return self.n_saes * self.features_per_sae


@dataclass(frozen=True)
class Loaded:
    """What loading took."""

    copy_s: float
    index_s: float
    explanation_bytes: int
    index_bytes: int
    feature_bytes: int
    insert_ms: float
    """One more explanation with its vector, all indexes there."""


def sae_slug(number: int) -> str:
    """Id of one of the SAEs."""
    return f"{number}-res-24k"


@contextmanager
def kept_server(folder: Path, size: Size) -> Generator[tuple[LocalPostgres, Path, bool]]:
    """A server whose data is kept for the next time; with its facts' file, and whether it was loaded."""
    facts = folder / "loaded.json"
    wanted = {**asdict(size), "version": VERSION}
    is_loaded = facts.exists() and orjson.loads(facts.read_bytes())["size"] == wanted
    if not is_loaded:
        shutil.rmtree(folder, ignore_errors=True)
    postgres = LocalPostgres(folder / "postgres", shared_buffers=BUFFERS)
    postgres.start()
    try:
        yield postgres, facts, is_loaded
    finally:
        postgres.stop()


def load(postgres: LocalPostgres, facts: Path, size: Size, found: Material) -> Loaded:
    """Load everything, index it, and remember what that took."""
    url = migrated(postgres, "search")
    loaded = asyncio.run(_load(url, size, found))
    kept = {"size": {**asdict(size), "version": VERSION}, "loaded": asdict(loaded)}
    facts.write_bytes(orjson.dumps(kept))
    return loaded


def read_facts(facts: Path) -> Loaded:
    """What loading took when it was done."""
    return Loaded(**orjson.loads(facts.read_bytes())["loaded"])


async def _load(url: str, size: Size, found: Material) -> Loaded:
    database = Database(DatabaseSettings(url=SecretStr(url)))
    try:
        subject = Subject(
            model=MODEL,
            model_shape={"n_layers": 12, "d_model": 768, "d_vocab": N_VOCABULARY, "architecture": "gpt2"},
            vocabulary=_vocabulary(found.topics),
            context_length=128,
            n_contexts=1,
            settings={},
        )
        registered = await register(
            database, subject, [_dictionary(number, size) for number in range(size.n_saes)]
        )
    finally:
        await database.dispose()
    connection = await asyncpg.connect(url, command_timeout=None)
    try:
        await connection.execute("SET statement_timeout = 0")
        await connection.set_type_codec(
            "halfvec", schema="public", encoder=_as_is, decoder=_as_is, format="binary"
        )
        return await _fill(connection, size, found, list(registered.version_ids.values()))
    finally:
        await connection.close()


def _as_is(value: bytes) -> bytes:
    return value


async def _fill(
    connection: asyncpg.Connection, size: Size, found: Material, version_ids: list[int]
) -> Loaded:
    began = time.perf_counter()
    for number, version_id in enumerate(version_ids):
        rows = _feature_rows(version_id, number, size)
        await connection.copy_records_to_table("feature", records=rows, columns=FEATURE_COLUMNS)
        LOG.info("features of SAE %d of %d", number + 1, size.n_saes)
    await _people(connection, size)
    # As after a restore: the graph is built of all vectors at once, in memory.
    index: str | None = await connection.fetchval(INDEX)
    await connection.execute("DROP INDEX ix_explanation_embedding")
    await connection.copy_records_to_table(
        "explanation", records=_explanation_rows(size, found), columns=EXPLANATION_COLUMNS
    )
    copy_s = time.perf_counter() - began
    LOG.info("explanations copied; now the index")
    index_s = await _build(connection, index)
    await connection.execute("VACUUM ANALYZE explanation")
    await connection.execute("ANALYZE feature")
    insert_ms = await _insert(connection)
    return Loaded(
        copy_s,
        index_s,
        await _bytes(connection, "pg_total_relation_size('explanation')"),
        await _bytes(connection, "pg_relation_size('ix_explanation_embedding')"),
        await _bytes(
            connection,
            "(SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('feature'))",
        ),
        insert_ms,
    )


async def _bytes(connection: asyncpg.Connection, what: str) -> int:
    found: int | None = await connection.fetchval(f"SELECT {what}")
    return found or 0


async def _build(connection: asyncpg.Connection, index: str | None) -> float:
    began = time.perf_counter()
    await connection.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 2")
    await connection.execute(index or "")
    return time.perf_counter() - began


async def _insert(connection: asyncpg.Connection, count: int = 300) -> float:
    """Milliseconds of one more row in the full index, rolled back after."""
    transaction = connection.transaction()
    await transaction.start()
    began = time.perf_counter()
    await connection.execute(
        "INSERT INTO explanation (sae_id, feature_idx, text, method, account_id, embedding, embedding_model)"
        " SELECT sae_id, feature_idx, text, method, account_id, embedding, embedding_model FROM explanation"
        " ORDER BY hashint8(id) LIMIT $1",
        count,
    )
    spent = time.perf_counter() - began
    await transaction.rollback()
    return spent / count * 1e3


async def _people(connection: asyncpg.Connection, size: Size) -> None:
    """Ten authors of very different diligence, three releases of four SAEs each."""
    for number in range(10):
        await connection.execute("INSERT INTO account (name) VALUES ($1)", f"author-{number}")
    for number in range(3):
        await connection.execute(
            "INSERT INTO release (slug, name, account_id) SELECT $1, $1, min(id) FROM account",
            f"release-{number}",
        )
    await connection.execute(
        "UPDATE sae SET release_id = (SELECT min(id) FROM release) + (sae.id - 1) / $1", -(-size.n_saes // 3)
    )


def _explanation_rows(size: Size, found: Material) -> Iterator[tuple[Any, ...]]:
    random = np.random.default_rng(SEED + 1)
    place = 0
    for texts, vectors in explanations(found, size.n_explanations, SEED):
        packed = _packed(vectors)
        authors = 2 + np.minimum(random.geometric(0.5, len(texts)), 10) - 1
        scores = np.round(random.beta(4, 3, len(texts)), 3)
        is_scored = random.random(len(texts)) < 0.7
        densities = _densities(random, len(texts))
        for number, text in enumerate(texts):
            sae, index = divmod(place, size.features_per_sae)
            score = float(scores[number]) if is_scored[number] else None
            yield (
                *(sae + 1, index, text, "examples", int(authors[number]), True, score),
                *(float(densities[number]), sae // -(-size.n_saes // 3) + 1, packed[number], ENCODER),
            )
            place += 1


def _packed(vectors: NDArray[np.float32]) -> list[bytes]:
    """As pgvector's halfvec in binary: the number of values, two empty bytes, the values, big-endian."""
    head = vectors.shape[1].to_bytes(2, "big") + b"\0\0"
    return [head + row.tobytes() for row in vectors.astype(">f2")]


def _densities(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    return np.exp(random.uniform(np.log(2e-6), np.log(2e-2), count))


def _feature_rows(version_id: int, number: int, size: Size) -> Iterator[tuple[Any, ...]]:
    random = np.random.default_rng([SEED, number])
    count = size.features_per_sae
    promoted = random.integers(0, N_VOCABULARY, (count, N_RANKED)).tolist()
    # examples peak on a few tokens, and on frequent ones more often
    peaks = (np.exp(random.random((count, 4)) * np.log(N_VOCABULARY)) - 1).astype(int).tolist()
    densities = _densities(random, count).tolist()
    for index in range(count):
        yield (version_id, index, densities[index], 100, 10.0, 2.0, promoted[index], peaks[index], BLOB, BLOB)


def _dictionary(number: int, size: Size) -> Dictionary:
    return Dictionary(
        slug=sae_slug(number),
        architecture="jumprelu",
        hook=f"blocks.{number}.hook_resid_pre",
        layer=number,
        d_in=768,
        d_sae=size.features_per_sae,
    )


def _vocabulary(words: list[str]) -> list[bytes]:
    """The topics with a space in front, spread over all frequencies, among tokens nobody asks for."""
    tokens = [f" t{number}".encode() for number in range(N_VOCABULARY)]
    step = N_VOCABULARY // len(words)
    for number, word in enumerate(words):
        tokens[number * step] = f" {word}".encode()
    return tokens
