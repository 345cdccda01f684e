"""Builds that ended badly: say so on the SAE at once, and clean up when nobody will retry them any more.

A failed or cancelled build keeps its rows and spills for a while, so that `POST /v1/jobs/{id}/retry` goes on
where it stopped. After that the version is `abandoned`, its rows and spills are gone. All steps are SQL with
conditions, so that any number of processes may sweep at once.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import and_, case, func, or_, select, update

from interpedia_ingest.build import repository
from interpedia_ingest.build.plan import ABANDONED
from interpedia_ingest.copying import allow_long_statements
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.models import SAE, Corpus, Feature, Job, SAEVersion
from interpedia_shared.db.session import Database, ReadSession, WriteSession

log = structlog.get_logger(__name__)

BUILDING, FAILED = "building", "failed"
_ENDED_BADLY = ("failed", "cancelled")
_UNDER_WAY = ("queued", "running")


class Sweeper:
    """Brings the states of versions, SAEs and corpora in line with those of their jobs."""

    def __init__(self, database: Database, folder: DataFolder, settings: IngestSettings) -> None:
        self._database = database
        self._folder = folder
        self._kept_for = timedelta(seconds=settings.keep_failed_builds_s)

    async def sweep(self) -> None:
        """One round."""
        async with self._database.write() as session:
            await _follow_jobs(session)
        # On its own: whoever publishes locks an SAE before its versions; the other way round is a deadlock.
        async with self._database.write() as session:
            await _follow_versions(session)
        async with self._database.read() as session:
            over = await _given_up(session, self._kept_for)
        for version_id in over:
            await self._abandon(version_id)
        await self._remove_orphan_spills()

    async def _abandon(self, version_id: int) -> None:
        async with self._database.write() as session:
            await allow_long_statements(session)
            version = await repository.lock_version(session, version_id)
            if version is None or version.state not in (FAILED, ABANDONED):
                return
            await repository.delete_features(session, version_id)
            version.state = ABANDONED
        log.info("build_abandoned", version=version_id)

    async def _remove_orphan_spills(self) -> None:
        """Remove spills of jobs that no version is waiting for."""
        folders = await asyncio.to_thread(_job_folders, self._folder.spills)
        if not folders:
            return
        async with self._database.read() as session:
            wanted = await session.scalars(
                select(SAEVersion.job_id)
                .where(SAEVersion.job_id.in_(folders), SAEVersion.state.in_((BUILDING, FAILED)))
                .distinct()
            )
            kept = set(wanted)
        for job_id, path in folders.items():
            if job_id not in kept:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
                log.info("spills_removed", job=str(job_id))


async def _follow_jobs(session: WriteSession) -> None:
    job_of = select(Job.state).where(Job.id == SAEVersion.job_id).scalar_subquery()
    ended = or_(job_of.in_(_ENDED_BADLY), SAEVersion.job_id.is_(None))
    await session.execute(update(SAEVersion).where(SAEVersion.state == BUILDING, ended).values(state=FAILED))
    await session.execute(
        update(SAEVersion).where(SAEVersion.state == FAILED, job_of.in_(_UNDER_WAY)).values(state=BUILDING)
    )
    corpus_job = select(Job.state).where(Job.id == Corpus.job_id).scalar_subquery()
    await session.execute(
        update(Corpus).where(Corpus.state == BUILDING, corpus_job.in_(_ENDED_BADLY)).values(state=FAILED)
    )
    await session.execute(
        update(Corpus).where(Corpus.state == FAILED, corpus_job.in_(_UNDER_WAY)).values(state=BUILDING)
    )


async def _follow_versions(session: WriteSession) -> None:
    newest = (
        select(SAEVersion.state)
        .where(SAEVersion.sae_id == SAE.id)
        .order_by(SAEVersion.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    state = case((newest == BUILDING, BUILDING), else_=FAILED)
    # An SAE with a finished version stays ready, whatever becomes of a further one.
    await session.execute(
        update(SAE)
        .where(SAE.current_version_id.is_(None), newest.is_not(None), SAE.state != state)
        .values(state=state)
        .execution_options(synchronize_session=False)
    )


async def _given_up(session: ReadSession, kept_for: timedelta) -> list[int]:
    """Versions to clean up: failed long ago, or abandoned by a newer one and still with rows."""
    has_rows = select(Feature.idx).where(Feature.sae_version_id == SAEVersion.id).exists()
    found = await session.scalars(
        select(SAEVersion.id)
        .outerjoin(Job, Job.id == SAEVersion.job_id)
        .where(
            or_(
                and_(
                    SAEVersion.state == FAILED,
                    or_(Job.id.is_(None), Job.finished_at < func.clock_timestamp() - kept_for),
                ),
                and_(SAEVersion.state == ABANDONED, has_rows),
            ),
        )
    )
    return list(found)


def _job_folders(spills: Path) -> dict[uuid.UUID, Path]:
    folders: dict[uuid.UUID, Path] = {}
    for path in spills.iterdir() if spills.is_dir() else ():
        try:
            folders[uuid.UUID(path.name)] = path
        except ValueError:
            continue
    return folders
