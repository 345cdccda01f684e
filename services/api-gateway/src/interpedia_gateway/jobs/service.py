"""Jobs as callers see and steer them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, or_, select, tuple_

from interpedia_gateway.keysets import Paging
from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.db.models import SAE, Job, SAEVersion
from interpedia_shared.db.session import Database, ReadSession, WriteSession
from interpedia_shared.jobs import JobOut, cancel_job, get_job, job_out, jobs_out, retry_job
from interpedia_shared.problems import BadCursor, Forbidden, JobNotFound
from interpedia_shared.schemas import Page


def visible_to(caller: Caller | None) -> ColumnElement[bool]:
    """Jobs that a caller may see: all but those that are about somebody else's private SAE."""
    builds = exists().where(
        SAEVersion.job_id == Job.id, SAE.id == SAEVersion.sae_id, SAE.visibility == "private"
    )
    searches = exists().where(
        Job.kind == "prompt_search",
        SAE.model_id == Job.params["model"].astext,
        Job.params["saes"].has_key(SAE.slug),
        SAE.visibility == "private",
    )
    # what autointerp orders says so itself: its jobs may be about many SAEs
    explains = Job.params["is_private"].as_boolean().is_(True)
    is_open = ~builds & ~searches & ~explains
    return is_open if caller is None else or_(Job.account_id == caller.account_id, is_open)


class Jobs:
    """Reads and steers jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, caller: Caller | None, *, state: str | None, kind: str | None, paging: Paging
    ) -> Page[JobOut]:
        """Jobs, newest first."""
        scope: dict[str, Any] = {"route": "jobs", "state": state, "kind": kind}
        statement = select(Job).where(visible_to(caller))
        if state is not None:
            statement = statement.where(Job.state == state)
        if kind is not None:
            statement = statement.where(Job.kind == kind)
        if key := paging.key(scope, (str, str)):
            statement = statement.where(tuple_(Job.created_at, Job.id) < tuple_(*_values(key)))
        statement = statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(paging.limit + 1)
        async with self._database.read() as session:
            jobs = list(await session.scalars(statement))
            items = await jobs_out(session, jobs)
        return paging.page(items, scope, lambda job: [job.created_at.isoformat(), str(job.id)])

    async def get(self, caller: Caller | None, job: uuid.UUID) -> JobOut:
        """One job.

        Raises:
            JobNotFound: no job has this id, or it is none of this caller's business.
        """
        async with self._database.read() as session:
            await _check_visible(session, caller, job)
            return await job_out(session, await get_job(session, job))

    async def cancel(self, caller: Caller, job: uuid.UUID) -> JobOut:
        """Cancel a job.

        Raises:
            JobNotFound: no such job.
            Forbidden: it is somebody else's.
            Conflict: it is over.
        """
        async with self._database.write() as session:
            await _check_owner(session, caller, job)
            return await job_out(session, await cancel_job(session, job))

    async def retry(self, caller: Caller, job: uuid.UUID) -> JobOut:
        """Retry a job.

        Raises:
            JobNotFound: no such job.
            Forbidden: it is somebody else's.
            Conflict: it did not fail and was not cancelled.
        """
        async with self._database.write() as session:
            await _check_owner(session, caller, job)
            return await job_out(session, await retry_job(session, job))


async def _check_visible(session: ReadSession | WriteSession, caller: Caller | None, job: uuid.UUID) -> None:
    if await session.scalar(select(Job.id).where(Job.id == job, visible_to(caller))) is None:
        raise JobNotFound(f"No job '{job}' here. GET /v1/jobs lists them.", extensions={"job": str(job)})


async def _check_owner(session: WriteSession, caller: Caller, job: uuid.UUID) -> None:
    await _check_visible(session, caller, job)
    owner = await session.scalar(select(Job.account_id).where(Job.id == job))
    if owner != caller.account_id and SCOPE_ADMIN not in caller.scopes:
        raise Forbidden(f"Job {job} was started by another account.", extensions={"job": str(job)})


def _values(key: list[Any]) -> tuple[datetime, uuid.UUID]:
    try:
        return datetime.fromisoformat(key[0]).astimezone(), uuid.UUID(key[1])
    except (ValueError, OverflowError) as error:
        detail = "not a cursor of this API"
        raise BadCursor(
            f"cursor: {detail}", extensions={"errors": [{"field": "cursor", "detail": detail}]}
        ) from error
