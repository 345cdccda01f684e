"""SQL of SAEs, their versions and releases."""

from __future__ import annotations

from sqlalchemy import select, update

from interpedia_ingest.build.plan import ABANDONED, READY
from interpedia_shared.db.models import SAE, Job, Release, SAEVersion
from interpedia_shared.db.session import WriteSession


async def find_sae(session: WriteSession, model: str, slug: str) -> SAE | None:
    """One SAE, ours until the transaction ends."""
    return await session.scalar(select(SAE).where(SAE.model_id == model, SAE.slug == slug).with_for_update())


async def build_under_way(session: WriteSession, sae_id: int) -> Job | None:
    """The job of a version of this SAE that may still become current."""
    return await session.scalar(
        select(Job)
        .join(SAEVersion, SAEVersion.job_id == Job.id)
        .where(SAEVersion.sae_id == sae_id, Job.state.in_(("queued", "running")))
        .limit(1)
    )


async def abandon_unfinished(session: WriteSession, sae_id: int) -> None:
    """Give up versions that never became ready: their jobs must not go on with what the SAE now is."""
    await session.execute(
        update(SAEVersion)
        .where(SAEVersion.sae_id == sae_id, SAEVersion.state.not_in((READY, ABANDONED)))
        .values(state=ABANDONED)
    )


async def find_release(session: WriteSession, slug: str) -> Release | None:
    """One release."""
    return await session.scalar(select(Release).where(Release.slug == slug))
