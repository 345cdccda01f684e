"""Models, SAEs and the builds of their dashboards."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import JSON, Base, BigId, CreatedAt


class Tokenizer(CreatedAt, Base):
    """The bytes of every token, shared by all models with the same tokenizer."""

    __tablename__ = "tokenizer"

    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    vocabulary: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int]


class LanguageModel(CreatedAt, Base):
    """A language model that features belong to."""

    __tablename__ = "language_model"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    source: Mapped[JSON]
    shape: Mapped[JSON]
    provenance: Mapped[JSON]
    tokenizer_hash: Mapped[str] = mapped_column(ForeignKey("tokenizer.hash"))
    bos_token_id: Mapped[int | None]
    licence: Mapped[str | None] = mapped_column(Text)


class Release(CreatedAt, BigId, Base):
    """SAEs that were published together."""

    __tablename__ = "release"

    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, server_default="")
    url: Mapped[str | None] = mapped_column(Text)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))


class SAE(CreatedAt, BigId, Base):
    """A dictionary of features at one hook of one model; its `slug` is unique within the model."""

    __tablename__ = "sae"
    __table_args__ = (UniqueConstraint("model_id", "slug"), Index(None, "release_id"))

    model_id: Mapped[str] = mapped_column(ForeignKey("language_model.id"))
    slug: Mapped[str] = mapped_column(Text)
    release_id: Mapped[int | None] = mapped_column(ForeignKey("release.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    title: Mapped[str] = mapped_column(Text, server_default="")
    description: Mapped[str] = mapped_column(Text, server_default="")
    architecture: Mapped[str] = mapped_column(Text)
    hook: Mapped[str] = mapped_column(Text)
    hook_out: Mapped[str | None] = mapped_column(Text)
    layer: Mapped[int]
    d_in: Mapped[int]
    d_out: Mapped[int]
    d_sae: Mapped[int]
    config: Mapped[JSON]
    weights_uri: Mapped[str | None] = mapped_column(Text)
    weights_sha256: Mapped[str | None] = mapped_column(Text)
    weights_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    state: Mapped[str] = mapped_column(Text)
    visibility: Mapped[str] = mapped_column(Text, server_default="public")
    current_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("sae_version.id", use_alter=True, name="fk_sae_current_version_id")
    )


class SAEVersion(CreatedAt, BigId, Base):
    """One build of an SAE's dashboards: readable by its id for ever, current when the SAE points at it."""

    __tablename__ = "sae_version"
    __table_args__ = (Index(None, "sae_id"),)

    sae_id: Mapped[int] = mapped_column(ForeignKey("sae.id", ondelete="CASCADE"))
    corpus_id: Mapped[int] = mapped_column(ForeignKey("corpus.id"))
    state: Mapped[str] = mapped_column(Text)
    settings: Mapped[JSON]
    provenance: Mapped[JSON]
    summary: Mapped[JSON | None]
    digest: Mapped[str | None] = mapped_column(Text)
    code_version: Mapped[str] = mapped_column(Text)
    n_contexts: Mapped[int]
    n_tokens: Mapped[int | None] = mapped_column(BigInteger)
    published_at: Mapped[datetime | None]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("job.id", ondelete="SET NULL"))
