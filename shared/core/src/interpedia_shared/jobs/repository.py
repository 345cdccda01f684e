"""The rows of jobs and tasks: locks, counts and sums."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update

from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import ReadSession, WriteSession


async def lock_job(session: WriteSession, job_id: uuid.UUID) -> Job | None:
    """The job's row, ours until the transaction ends. Every change of a job or of its tasks starts here.

    Rows that merely refer to the job are not held up (FOR NO KEY UPDATE).
    """
    return await session.get(Job, job_id, with_for_update={"key_share": True}, populate_existing=True)


async def lock_task(session: WriteSession, task_id: int) -> JobTask | None:
    """The task's row. The job's is locked already."""
    return await session.get(JobTask, task_id, with_for_update={"key_share": True}, populate_existing=True)


async def database_now(session: WriteSession) -> datetime:
    """The database's clock, the only one that is compared with its rows."""
    now = await session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, datetime)
    return now


async def counts_by_state(
    session: ReadSession | WriteSession, job_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, dict[str, int]]:
    """How many tasks are in each state, for each job; states without tasks are left out."""
    rows = await session.execute(
        select(JobTask.job_id, JobTask.state, func.count())
        .where(JobTask.job_id.in_(list(job_ids)))
        .group_by(JobTask.job_id, JobTask.state)
    )
    counts: dict[uuid.UUID, dict[str, int]] = defaultdict(dict)
    for job_id, state, count in rows:
        counts[job_id][state] = count
    return counts


async def states_in_stage(session: WriteSession, job_id: uuid.UUID, stage: int) -> set[str]:
    """The states that tasks of this stage are in."""
    rows = await session.scalars(
        select(JobTask.state).where(JobTask.job_id == job_id, JobTask.stage == stage).distinct()
    )
    return set(rows)


async def first_unfinished_stage(session: WriteSession, job_id: uuid.UUID) -> int | None:
    """The lowest stage with a task that is not done; None when all are."""
    return await session.scalar(
        select(func.min(JobTask.stage)).where(JobTask.job_id == job_id, JobTask.state != "done")
    )


async def first_dead_task(session: WriteSession, job_id: uuid.UUID) -> JobTask | None:
    """The task that died first."""
    return await session.scalar(
        select(JobTask)
        .where(JobTask.job_id == job_id, JobTask.state == "dead")
        .order_by(JobTask.finished_at, JobTask.stage, JobTask.ordinal)
        .limit(1)
    )


async def waiting_to_queued(session: WriteSession, job_id: uuid.UUID, stage: int) -> Sequence[JobTask]:
    """Let a stage's waiting tasks go; returns them in their order."""
    tasks = await session.scalars(
        select(JobTask)
        .where(JobTask.job_id == job_id, JobTask.stage == stage, JobTask.state == "waiting")
        .order_by(JobTask.ordinal)
    )
    started = list(tasks)
    for task in started:
        task.state = "queued"
    await session.flush()
    return started


async def cancel_unstarted(session: WriteSession, job_id: uuid.UUID) -> list[int]:
    """Cancel the tasks that no worker has; returns the ids of those."""
    rows = await session.scalars(
        update(JobTask)
        .where(JobTask.job_id == job_id, JobTask.state.in_(("waiting", "queued")))
        .values(state="cancelled", finished_at=func.clock_timestamp())
        .returning(JobTask.id)
    )
    return list(rows)


async def recount(session: WriteSession, job: Job) -> None:
    """Make `done` the sum of the tasks' progress again."""
    await session.flush()
    done = await session.scalar(
        select(func.coalesce(func.sum(JobTask.progress), 0)).where(JobTask.job_id == job.id)
    )
    job.done = int(done or 0)


async def tasks_without_worker(
    session: ReadSession | WriteSession, queue: str, *, silent_for: timedelta
) -> list[JobTask]:
    """Tasks of jobs under way that some queue entry should be carrying."""
    silent = JobTask.heartbeat_at < func.clock_timestamp() - silent_for
    rows = await session.scalars(
        select(JobTask)
        .join(Job, Job.id == JobTask.job_id)
        .where(
            Job.state.in_(("queued", "running")),
            JobTask.queue == queue,
            or_(JobTask.state == "queued", (JobTask.state == "running") & silent),
        )
        .order_by(JobTask.id)
    )
    return list(rows)
