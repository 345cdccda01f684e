"""What happened to a job, in order."""

from __future__ import annotations

import uuid

from sqlalchemy import func, insert, select

from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import JobEvent
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.jobs.schemas import EventType

PROGRESS_INTERVAL_S = 1.0


async def append_event(session: WriteSession, job_id: uuid.UUID, *, type: EventType, data: JSON) -> None:  # noqa: A002
    """Add an event. The caller holds the job's row lock.

    Only then do ids grow in the order of commits, and a reader who goes on after the last id misses nothing.
    """
    await session.execute(
        insert(JobEvent).values(job_id=job_id, at=func.clock_timestamp(), type=type, data=data)
    )


async def append_progress(session: WriteSession, job_id: uuid.UUID, data: JSON) -> bool:
    """Add a progress event unless the job had one within the last second. As `append_event` otherwise."""
    last = (
        select(JobEvent.at)
        .where(JobEvent.job_id == job_id, JobEvent.type == "progress")
        .order_by(JobEvent.id.desc())
        .limit(1)
    )
    age = await session.scalar(select(func.extract("epoch", func.clock_timestamp() - last.scalar_subquery())))
    if age is not None and float(age) < PROGRESS_INTERVAL_S:
        return False
    await append_event(session, job_id, type="progress", data=data)
    return True


async def read_events(
    session: ReadSession | WriteSession, job_id: uuid.UUID, *, after: int = 0, limit: int = 500
) -> list[JobEvent]:
    """The job's events with ids above `after`, oldest first."""
    rows = await session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.id > after)
        .order_by(JobEvent.id)
        .limit(limit)
    )
    return list(rows)
