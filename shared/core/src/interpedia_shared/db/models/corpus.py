"""Tokenised text with its provenance."""

from __future__ import annotations

import uuid

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import JSON, Base, BigId, CreatedAt


class Corpus(CreatedAt, BigId, Base):
    """A text data set, tokenised by one tokenizer into contexts of one length."""

    __tablename__ = "corpus"

    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    tokenizer_hash: Mapped[str] = mapped_column(ForeignKey("tokenizer.hash"))
    context_length: Mapped[int]
    prepend_bos: Mapped[bool]
    token_width: Mapped[int] = mapped_column(SmallInteger)
    n_contexts: Mapped[int]
    n_tokens: Mapped[int] = mapped_column(BigInteger)
    n_documents: Mapped[int]
    digest: Mapped[str] = mapped_column(Text)
    provenance: Mapped[JSON]
    state: Mapped[str] = mapped_column(Text)
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("job.id", ondelete="SET NULL"))


class CorpusDocument(Base):
    """Where a stretch of contexts comes from, and under which licence."""

    __tablename__ = "corpus_document"

    corpus_id: Mapped[int] = mapped_column(ForeignKey("corpus.id", ondelete="CASCADE"), primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(Text)


class Context(Base):
    """One fixed-length window: packed token ids, and the document and token offset it was cut from."""

    __tablename__ = "context"

    corpus_id: Mapped[int] = mapped_column(ForeignKey("corpus.id", ondelete="CASCADE"), primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tokens: Mapped[bytes] = mapped_column(LargeBinary)
    document_idx: Mapped[int]
    token_offset: Mapped[int]
