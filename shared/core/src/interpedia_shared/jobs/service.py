"""What the API does with jobs: create, read, cancel, retry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import update

from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.jobs import queue
from interpedia_shared.jobs.events import append_event
from interpedia_shared.jobs.plan import TaskSpec, check_plan
from interpedia_shared.jobs.repository import (
    cancel_unstarted,
    counts_by_state,
    first_unfinished_stage,
    lock_job,
    recount,
)
from interpedia_shared.jobs.schemas import JOB_ENDED, JobOut, TaskCounts
from interpedia_shared.jobs.stages import advance, start_stage
from interpedia_shared.problems import Conflict, JobNotFound


async def create_job(
    session: WriteSession,
    *,
    kind: str,
    account_id: int,
    params: JSON,
    stages: Sequence[str],
    tasks: Sequence[TaskSpec],
) -> Job:
    """Make a job and queue its first stage, all in the caller's transaction: a rollback leaves nothing.

    A stage without tasks is passed over.

    Raises:
        ValueError: the plan has no tasks, or contradicts itself.
    """
    check_plan(stages, tasks)
    first = min(task.stage for task in tasks)
    job = Job(
        id=uuid.uuid4(),
        kind=kind,
        state="queued",
        account_id=account_id,
        params=params,
        stages=list(stages),
        stage=stages[first],
        total=sum(task.weight for task in tasks),
    )
    session.add(job)
    await session.flush()
    session.add_all(
        JobTask(
            job_id=job.id,
            kind=task.kind,
            queue=task.queue,
            stage=task.stage,
            ordinal=task.ordinal,
            params=task.params,
            state="waiting",
            weight=task.weight,
            max_attempts=task.max_attempts,
        )
        for task in tasks
    )
    await session.flush()
    await append_event(session, job.id, type="queued", data={"stage": job.stage, "total": job.total})
    await start_stage(session, job, first)
    await session.refresh(job)
    return job


async def get_job(session: ReadSession | WriteSession, job_id: uuid.UUID) -> Job:
    """One job.

    Raises:
        JobNotFound: no job has this id.
    """
    job = await session.get(Job, job_id)
    if job is None:
        raise _not_found(job_id)
    return job


async def jobs_out(session: ReadSession | WriteSession, jobs: Sequence[Job]) -> list[JobOut]:
    """The jobs as the API shows them, with one query for all their tasks."""
    counts = await counts_by_state(session, [job.id for job in jobs])
    return [_job_out(job, TaskCounts(**counts.get(job.id, {}))) for job in jobs]


async def job_out(session: ReadSession | WriteSession, job: Job) -> JobOut:
    """One job as the API shows it."""
    return (await jobs_out(session, [job]))[0]


async def cancel_job(session: WriteSession, job_id: uuid.UUID) -> Job:
    """Cancel what has not started at once, and ask what runs to stop; again changes nothing.

    The job is `cancelled` when nothing of it runs any more. One whose last task finishes first has succeeded.

    Raises:
        JobNotFound: no job has this id.
        Conflict: the job has succeeded or failed.
    """
    job = await _locked(session, job_id)
    if job.state == "cancelled" or (job.cancel_requested and job.state not in JOB_ENDED):
        return job
    if job.state in JOB_ENDED:
        raise Conflict(
            f"Job {job_id} has {job.state}: only a queued or running job can be cancelled.",
            extensions={"job": str(job_id), "state": job.state},
        )
    job.cancel_requested = True
    await session.flush()
    await queue.drop(session, await cancel_unstarted(session, job_id))
    await advance(session, job)
    await session.flush()
    return job


async def retry_job(session: WriteSession, job_id: uuid.UUID) -> Job:
    """Run again what died or was cancelled, with all its attempts; what is done stays done.

    Raises:
        JobNotFound: no job has this id.
        Conflict: the job has not failed and was not cancelled.
    """
    job = await _locked(session, job_id)
    if job.state not in {"failed", "cancelled"}:
        raise Conflict(
            f"Job {job_id} is {job.state}: only a failed or cancelled job can be retried.",
            extensions={"job": str(job_id), "state": job.state},
        )
    rows = await session.scalars(
        update(JobTask)
        .where(JobTask.job_id == job_id, JobTask.state.in_(("dead", "cancelled")))
        .values(
            state="waiting",
            attempt=0,
            progress=0,
            error=None,
            worker=None,
            heartbeat_at=None,
            started_at=None,
            finished_at=None,
        )
        .returning(JobTask.id)
    )
    count = len(list(rows))
    job.state, job.cancel_requested, job.error, job.finished_at = "queued", False, None, None
    await recount(session, job)
    await append_event(session, job.id, type="retried", data={"tasks": count})
    stage = await first_unfinished_stage(session, job_id)
    if stage is not None:
        await start_stage(session, job, stage)
    await session.flush()
    return job


async def _locked(session: WriteSession, job_id: uuid.UUID) -> Job:
    job = await lock_job(session, job_id)
    if job is None:
        raise _not_found(job_id)
    return job


def _not_found(job_id: uuid.UUID) -> JobNotFound:
    return JobNotFound(f"No job '{job_id}' here. GET /v1/jobs lists them.", extensions={"job": str(job_id)})


def _job_out(job: Job, tasks: TaskCounts) -> JobOut:
    columns = {name: getattr(job, name) for name in JobOut.model_fields if name != "tasks"}
    return JobOut(**columns, tasks=tasks)
