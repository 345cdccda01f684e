"""The `publish` task: a version that is whole becomes the one that readers see, by one UPDATE."""

from __future__ import annotations

import asyncio
from pathlib import Path

import torch
from sqlalchemy import func, update

from interpedia_ingest.build import repository
from interpedia_ingest.build.materials import Materials, given_up, target_name
from interpedia_ingest.build.plan import ABANDONED, READY
from interpedia_ingest.build.repository import VersionRows
from interpedia_ingest.build.shard import make_spills, open_verified
from interpedia_ingest.build.watching import in_thread
from interpedia_ingest.copying import allow_long_statements
from interpedia_ingest.dashboards.errors import BadSpill
from interpedia_ingest.dashboards.result import RowsDigest
from interpedia_ingest.dashboards.summary import BuildSummary, summarise
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import SAE, SAEVersion
from interpedia_shared.db.session import WriteSession
from interpedia_shared.explanations import refresh_copies
from interpedia_shared.jobs import TaskContext, TaskFailed

REFRESHED = 512
"""Features whose explanations are brought up to date in one transaction."""


class PublishTask:
    """Handler of `publish`."""

    def __init__(self, materials: Materials, settings: IngestSettings) -> None:
        self._materials = materials
        self._settings = settings

    async def __call__(self, context: TaskContext) -> JSON:
        """Check that every feature is there, take the digest, switch over, drop the spills.

        Raises:
            TaskFailed: features are missing, or the SAE was published again since.
        """
        (rows,) = await self._materials.versions(context, [context.params["version"]])
        name = target_name(rows.version.id)
        folder = self._materials.spill_folder(context.job_id)
        digest = rows.version.digest
        if rows.version.state != READY:
            digest = await self._switch(context, rows, folder)
        await _tell_explanations(context, rows)
        self._materials.forget(rows.version.id)
        await asyncio.to_thread(remove_spills, folder, name)
        return {rows.sae.slug: {"version": rows.version.id, "n_features": rows.sae.d_sae, "digest": digest}}

    async def _switch(self, context: TaskContext, rows: VersionRows, folder: Path) -> str | None:
        selection = await self._materials.selection(context.database, rows)
        summary = await self._summary(context, rows, folder)
        async with context.database.write() as session:
            await allow_long_statements(session)
            sae = await repository.lock_sae(session, rows.sae.id)
            version = await repository.lock_version(session, rows.version.id)
            if sae is None or version is None or version.state == READY:
                return version.digest if version is not None else None
            if version.state == ABANDONED:
                raise given_up(rows)
            if sae.current_version_id is not None and sae.current_version_id > version.id:
                raise _overtaken(rows, sae.current_version_id)
            digest = await _weigh(session, context, rows)
            provenance = {
                **version.provenance,
                "selection_digest": selection.digest(0, selection.n_rows),
                "computed_with": self._computed_with(),
            }
            await _make_current(session, rows, summary, digest=digest, provenance=provenance)
        return digest

    async def _summary(self, context: TaskContext, rows: VersionRows, folder: Path) -> BuildSummary:
        async with context.database.read() as session:
            shards = await repository.read_shards(session, context.job_id)
        name = target_name(rows.version.id)

        def work() -> BuildSummary:
            return summarise(open_verified(folder, name, shards))

        try:
            return await in_thread(context, work)
        except BadSpill:
            # A disk lost what the shards wrote: no task but ours is left to write it again.
            await make_spills(self._materials, context, [rows], shards)
            return await in_thread(context, work)

    def _computed_with(self) -> JSON:
        return {
            "dtype": self._settings.model_dtype,
            "device": self._settings.device,
            "threads": self._settings.torch_threads,
            "torch": torch.__version__,
        }


def _overtaken(rows: VersionRows, current: int) -> TaskFailed:
    return TaskFailed(
        f"{rows.model.id}/{rows.sae.slug} has the newer version {current}; this is {rows.version.id}.",
        type="conflict",
        title="Conflict",
    )


async def _weigh(session: WriteSession, context: TaskContext, rows: VersionRows) -> str:
    """SHA-256 over all rows, read back from the table."""
    digest = RowsDigest()
    n_rows = await repository.count_features(session, rows.version.id)
    if n_rows != rows.sae.d_sae:
        raise TaskFailed(
            f"{rows.model.id}/{rows.sae.slug} has {n_rows} of {rows.sae.d_sae} features. Publish it again."
        )
    async for row in repository.iterate_features(session, rows.version.id):
        digest.add(row)
        if row.idx % 1_024 == 0:
            context.check()
    return digest.hexdigest()


async def _make_current(
    session: WriteSession, rows: VersionRows, summary: BuildSummary, *, digest: str, provenance: JSON
) -> None:
    await session.execute(
        update(SAEVersion)
        .where(SAEVersion.id == rows.version.id)
        .values(
            state=READY,
            summary=summary.to_json(),
            digest=digest,
            provenance=provenance,
            n_tokens=summary.n_tokens,
            published_at=func.clock_timestamp(),
        )
    )
    await session.execute(
        update(SAE).where(SAE.id == rows.sae.id).values(current_version_id=rows.version.id, state=READY)
    )


async def _tell_explanations(context: TaskContext, rows: VersionRows) -> None:
    """Explanations carry a copy of their feature's density; not in the switch, which must be short."""
    for first in range(0, rows.sae.d_sae, REFRESHED):
        context.check()
        async with context.database.write() as session:
            await refresh_copies(session, rows.sae.id, range(first, first + REFRESHED))


def remove_spills(folder: Path, name: str) -> None:
    """Remove a version's spills, and the folder when it is the last one's. Blocking."""
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        # Others' spills are still in it, or it is gone.
        return
