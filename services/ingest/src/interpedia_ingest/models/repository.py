"""SQL of models."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from interpedia_engine.hooks import ModelShape
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Job, LanguageModel, Tokenizer
from interpedia_shared.db.session import ReadSession, WriteSession


async def find(session: ReadSession | WriteSession, model: str) -> LanguageModel | None:
    """One model."""
    return await session.get(LanguageModel, model)


def shape_of(model: LanguageModel) -> ModelShape:
    """The sizes that hooks and SAEs are checked against."""
    return ModelShape(**model.shape)


async def lock_name(session: WriteSession, kind: str, name: str) -> None:
    """Let one transaction at a time decide about a name that may have no row yet."""
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"{kind}:{name}"}
    )


async def last_job(session: WriteSession, model: str) -> Job | None:
    """The newest job that registers this model."""
    query = (
        select(Job)
        .where(Job.kind == "register_model", Job.params["model"].astext == model)
        .order_by(Job.created_at.desc(), Job.id)
        .limit(1)
    )
    return await session.scalar(query)


async def insert_model(session: WriteSession, vocabulary: bytes, size: int, **columns: Any) -> JSON | None:
    """Insert a model with its tokenizer, unless it is there; the source that stands there then."""
    await session.execute(
        insert(Tokenizer)
        .values(hash=columns["tokenizer_hash"], vocabulary=vocabulary, size=size)
        .on_conflict_do_nothing()
    )
    inserted = await session.scalar(
        insert(LanguageModel).values(**columns).on_conflict_do_nothing().returning(LanguageModel.id)
    )
    if inserted is not None:
        return None
    return await session.scalar(select(LanguageModel.source).where(LanguageModel.id == columns["id"]))
