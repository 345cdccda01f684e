"""SQL of corpora."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select

from interpedia_ingest.copying import copy_rows
from interpedia_ingest.corpora.documents import Document
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Context, Corpus, CorpusDocument
from interpedia_shared.db.session import ReadSession, WriteSession

ContextRow = tuple[bytes, int, int]
"""Packed token ids, document number, offset of the first token (BOS left out) in the document's tokens."""


async def find(session: ReadSession | WriteSession, slug: str) -> Corpus | None:
    """One corpus by its public id."""
    return await session.scalar(select(Corpus).where(Corpus.slug == slug))


async def lock(session: WriteSession, corpus_id: int) -> Corpus | None:
    """One corpus, ours until the transaction ends."""
    return await session.scalar(select(Corpus).where(Corpus.id == corpus_id).with_for_update())


async def clear(session: WriteSession, corpus_id: int) -> None:
    """Remove all contexts and documents."""
    await session.execute(delete(Context).where(Context.corpus_id == corpus_id))
    await session.execute(delete(CorpusDocument).where(CorpusDocument.corpus_id == corpus_id))


async def add_documents(
    session: WriteSession, corpus_id: int, documents: Sequence[Document], *, first: int
) -> None:
    """Append documents, numbered from `first`."""
    rows = (
        (corpus_id, first + offset, document.name, document.source, document.licence)
        for offset, document in enumerate(documents)
    )
    await copy_rows(session, "corpus_document", ("corpus_id", "idx", "name", "source", "licence"), rows)


async def add_contexts(
    session: WriteSession, corpus_id: int, contexts: Sequence[ContextRow], *, first: int
) -> None:
    """Append contexts, numbered from `first`."""
    rows = ((corpus_id, first + offset, *row) for offset, row in enumerate(contexts))
    await copy_rows(session, "context", ("corpus_id", "idx", "tokens", "document_idx", "token_offset"), rows)


async def read_contexts(session: ReadSession, corpus_id: int, numbers: Sequence[int]) -> list[bytes]:
    """Packed ids of some contexts, in ascending order of their numbers."""
    rows = await session.scalars(
        select(Context.tokens)
        .where(Context.corpus_id == corpus_id, Context.idx.in_(numbers))
        .order_by(Context.idx)
    )
    return list(rows)


def mark_ready(corpus: Corpus, *, digest: str, provenance: JSON, **counts: Any) -> None:
    """Fill in what is known once all text has been read."""
    corpus.digest = digest
    corpus.provenance = {**corpus.provenance, **provenance}
    corpus.n_contexts = counts["n_contexts"]
    corpus.n_tokens = counts["n_tokens"]
    corpus.n_documents = counts["n_documents"]
    corpus.state = "ready"
