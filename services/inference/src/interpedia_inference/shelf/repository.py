"""Rows of the model and its SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import SAE, LanguageModel, SAEVersion
from interpedia_shared.db.session import ReadSession


@dataclass(frozen=True, slots=True)
class SAERow:
    """What loading an SAE needs of its row."""

    id: int
    slug: str
    hook: str
    hook_out: str | None
    d_sae: int
    config: JSON
    weights_uri: str | None
    weights_sha256: str | None
    weights_bytes: int
    version_id: int | None


async def read_model_source(session: ReadSession, model: str) -> JSON | None:
    """Where the weights of a model come from; None when no model has this id."""
    return await session.scalar(select(LanguageModel.source).where(LanguageModel.id == model))


async def read_saes(session: ReadSession, model: str, slugs: Sequence[str]) -> dict[str, SAERow]:
    """The SAEs of a model with these slugs, those that there are.

    The version is the current one if it is published: only then do its numbers hold.
    """
    query = (
        select(SAE, SAEVersion.id)
        .outerjoin(
            SAEVersion,
            (SAEVersion.id == SAE.current_version_id) & SAEVersion.published_at.is_not(None),
        )
        .where(SAE.model_id == model, SAE.slug.in_(slugs))
    )
    rows = (await session.execute(query)).all()
    return {
        sae.slug: SAERow(
            id=sae.id,
            slug=sae.slug,
            hook=sae.hook,
            hook_out=sae.hook_out,
            d_sae=sae.d_sae,
            config=sae.config,
            weights_uri=sae.weights_uri,
            weights_sha256=sae.weights_sha256,
            weights_bytes=sae.weights_bytes,
            version_id=version_id,
        )
        for sae, version_id in rows
    }
