"""The rows that features hang on: account, tokenizer, model, corpus, SAEs; and COPY as a worker does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from interpedia_ingest.dashboards.result import FeatureRow
from interpedia_shared.db.models import (
    SAE,
    Account,
    Corpus,
    CorpusDocument,
    LanguageModel,
    SAEVersion,
    Tokenizer,
)
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.tokens import Vocabulary, pack_ids, token_width

FEATURE_COLUMNS = ("sae_version_id", *(one.name for one in fields(FeatureRow)))
_row_values = attrgetter(*FEATURE_COLUMNS[1:])
CONTEXT_COLUMNS = ("corpus_id", "idx", "tokens", "document_idx", "token_offset")


@dataclass(frozen=True)
class Dictionary:
    """One SAE to be registered."""

    slug: str
    architecture: str
    hook: str
    layer: int
    d_in: int
    d_sae: int
    stored: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Columns that say where the weights are; without them it cannot be loaded."""


@dataclass(frozen=True)
class Registered:
    """Ids of what was registered."""

    corpus_id: int
    version_ids: dict[str, int]


@dataclass(frozen=True)
class Subject:
    """The model and the corpus."""

    model: str
    model_shape: dict[str, Any]
    vocabulary: Sequence[bytes]
    context_length: int
    n_contexts: int
    settings: dict[str, Any]
    source: dict[str, Any] = field(default_factory=lambda: {"kind": "tiny"})
    """Where its weights come from."""


async def register(database: Database, subject: Subject, dictionaries: Sequence[Dictionary]) -> Registered:
    """Write the catalogue; every SAE gets one version, current at once."""
    async with database.write() as session:
        account = Account(name="bench")
        session.add(account)
        await session.flush()
        await _add_model(session, subject)
        corpus = _corpus(subject, account.id)
        session.add(corpus)
        await session.flush()
        session.add(
            CorpusDocument(corpus_id=corpus.id, idx=0, name="bench", source="synthetic", licence="CC0-1.0")
        )
        versions = {
            dictionary.slug: await _add_sae(session, subject, dictionary, corpus=corpus)
            for dictionary in dictionaries
        }
        return Registered(corpus.id, versions)


async def _add_model(session: WriteSession, subject: Subject) -> None:
    vocabulary = Vocabulary(subject.vocabulary)
    session.add(Tokenizer(hash="bench", vocabulary=vocabulary.pack(), size=len(vocabulary)))
    await session.flush()
    session.add(
        LanguageModel(
            id=subject.model,
            name=subject.model,
            source=subject.source,
            shape=subject.model_shape,
            provenance={"dtype": "float32", "tokenizer_hash": "bench"},
            tokenizer_hash="bench",
            bos_token_id=1,
            licence=None,
        )
    )
    await session.flush()


def _corpus(subject: Subject, account_id: int) -> Corpus:
    return Corpus(
        slug="bench",
        name="bench",
        account_id=account_id,
        tokenizer_hash="bench",
        context_length=subject.context_length,
        prepend_bos=True,
        token_width=token_width(len(subject.vocabulary)),
        n_contexts=subject.n_contexts,
        n_tokens=subject.n_contexts * subject.context_length,
        n_documents=1,
        digest="bench",
        provenance={},
        state="ready",
    )


async def _add_sae(session: WriteSession, subject: Subject, dictionary: Dictionary, *, corpus: Corpus) -> int:
    sae = SAE(
        model_id=subject.model,
        slug=dictionary.slug,
        account_id=corpus.account_id,
        architecture=dictionary.architecture,
        hook=dictionary.hook,
        layer=dictionary.layer,
        d_in=dictionary.d_in,
        d_out=dictionary.d_in,
        d_sae=dictionary.d_sae,
        state="ready",
        **{"config": {"architecture": dictionary.architecture}, **dictionary.stored},
    )
    session.add(sae)
    await session.flush()
    version = SAEVersion(
        sae_id=sae.id,
        corpus_id=corpus.id,
        state="published",
        settings=subject.settings,
        provenance={
            "hook": dictionary.hook,
            "hook_site": {"module": f"transformer.h.{dictionary.layer}", "side": "output"},
            "prepend_bos": True,
        },
        published_at=datetime.now(UTC),
        code_version="bench",
        n_contexts=subject.n_contexts,
        n_tokens=subject.n_contexts * subject.context_length,
    )
    session.add(version)
    await session.flush()
    await session.execute(update(SAE).where(SAE.id == sae.id).values(current_version_id=version.id))
    return version.id


async def copy_contexts(
    connection: asyncpg.Connection, corpus_id: int, tokens: NDArray[np.uint32], width: int
) -> None:
    """COPY the contexts of a corpus."""
    rows = ((corpus_id, idx, pack_ids(ids, width), 0, 127 * idx) for idx, ids in enumerate(tokens))
    await connection.copy_records_to_table("context", records=rows, columns=CONTEXT_COLUMNS)


async def copy_features(connection: asyncpg.Connection, version_id: int, rows: Sequence[FeatureRow]) -> None:
    """COPY feature rows, one statement, as a worker does for its range."""
    await connection.copy_records_to_table(
        "feature", records=_records(version_id, rows), columns=FEATURE_COLUMNS
    )


def _records(version_id: int, rows: Sequence[FeatureRow]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield (version_id, *_row_values(row))


async def stored_bytes(connection: asyncpg.Connection, *tables: str) -> int:
    """Bytes of tables with their partitions, indexes and out-of-line values, but for empty partitions."""
    size: int | None = await connection.fetchval(
        """
        SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
        FROM (
            SELECT tree.relid
            FROM unnest($1::text[]) AS wanted(name), pg_partition_tree(wanted.name::regclass) AS tree
            UNION SELECT name::regclass FROM unnest($1::text[]) AS plain(name)
        ) AS relations
        WHERE pg_relation_size(relid) > 0
        """,
        list(tables),
    )
    return size or 0
