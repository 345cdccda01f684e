"""The life of a task, one transaction a step: begin an attempt, then finish, fail, be cancelled or released.

Every step locks the job first and is fenced by (worker, attempt): a worker that lost its task changes
nothing. Steps may be repeated after a lost connection, when nobody knows whether the commit went through.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import WriteSession
from interpedia_shared.jobs import queue
from interpedia_shared.jobs.errors import WORKER_DIED, describe_crash
from interpedia_shared.jobs.events import append_event, append_progress
from interpedia_shared.jobs.repository import database_now, lock_job, lock_task, recount
from interpedia_shared.jobs.stages import advance


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who takes tasks. `silent_for` is how long a worker must have been silent to be thought dead."""

    name: str
    id: uuid.UUID
    queue: str
    silent_for: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at one task by one worker."""

    entry: queue.Entry
    worker: str
    attempt: int
    task: JobTask
    job_params: JSON

    @property
    def where(self) -> str:
        """The task in words, for logs and errors."""
        return (
            f"task '{self.task.kind}' {self.task.ordinal}, attempt {self.attempt} of {self.task.max_attempts}"
        )


def label(job: Job, task: JobTask) -> JSON:
    """How events name a task: by words of the API, not by our surrogate key."""
    return {"task": task.kind, "stage": job.stages[task.stage], "ordinal": task.ordinal}


async def begin_attempt(
    session: WriteSession, entry: queue.Entry, worker: WorkerIdentity, *, busy: Collection[int]
) -> Claim | None:
    """Count an attempt and make the task this worker's, if it is anybody's to take.

    The count is committed before the work: if the worker dies in it, the attempt is used up.

    Args:
        session: a transaction of its own.
        entry: what this worker took from the queue.
        worker: who takes it.
        busy: ids of the tasks that run in this process now.
    """
    held = await _startable(session, entry)
    if held is None:
        return None
    job, task = held
    if task.worker == worker.name and task.state == "running":
        # Either our own heartbeat was late, and taking the entry has put that right; or the commit of this
        # very step went through though its answer was lost, and the attempt has yet to begin.
        return None if task.id in busy else Claim(entry, worker.name, task.attempt, task, job.params)
    now = await database_now(session)
    alive = task.heartbeat_at is not None and now - task.heartbeat_at < worker.silent_for
    if task.id in busy or (task.state == "running" and alive):
        await queue.postpone(session, task, worker.silent_for)
        return None
    if task.state == "running":
        await _record_crash(session, job, task)
    if job.cancel_requested or task.attempt >= task.max_attempts:
        await _end_task(session, job, task, state="cancelled" if job.cancel_requested else "dead")
        return None
    if job.state == "queued":
        job.state = "running"
        job.started_at = job.started_at or now
        await append_event(session, job.id, type="started", data={"stage": job.stage})
    task.state, task.worker, task.attempt = "running", worker.name, task.attempt + 1
    task.started_at = task.heartbeat_at = now
    task.progress = 0
    await recount(session, job)
    return Claim(entry, worker.name, task.attempt, task, job.params)


async def finish(session: WriteSession, claim: Claim, result: JSON | None) -> bool:
    """The task is done; its result is merged into the job's. False when the task is no longer ours."""
    held = await _held(session, claim)
    if held is None:
        return False
    job, task = held
    if result:
        job.result = {**(job.result or {}), **result}
    task.progress, task.error = task.weight, None
    await _end_task(session, job, task, state="done")
    return True


async def fail(session: WriteSession, claim: Claim, error: JSON, *, retry_in: timedelta | None) -> bool:
    """The attempt failed. `retry_in` None means that no attempt can help. False when no longer ours."""
    held = await _held(session, claim)
    if held is None:
        return False
    job, task = held
    task.error = error
    await append_event(
        session,
        job.id,
        type="task_failed",
        data={**label(job, task), "attempt": task.attempt, "error": error},
    )
    if job.cancel_requested:
        await _end_task(session, job, task, state="cancelled")
    elif retry_in is None or task.attempt >= task.max_attempts:
        await _end_task(session, job, task, state="dead")
    else:
        await _back_to_queue(session, job, task, retry_in)
    return True


async def cancel(session: WriteSession, claim: Claim) -> bool:
    """The handler stopped because the job was cancelled. False when the task is no longer ours."""
    held = await _held(session, claim)
    if held is None:
        return False
    job, task = held
    if job.cancel_requested:
        await _end_task(session, job, task, state="cancelled")
    else:
        await _back_to_queue(session, job, task, timedelta(0))
    return True


async def release(session: WriteSession, claim: Claim, *, delay: timedelta = timedelta(0)) -> bool:
    """The worker is leaving: the attempt does not count. False when the task is no longer ours."""
    held = await _held(session, claim)
    if held is None:
        return False
    job, task = held
    task.attempt -= 1
    if job.cancel_requested:
        await _end_task(session, job, task, state="cancelled")
    else:
        await _back_to_queue(session, job, task, delay)
    return True


async def write_progress(session: WriteSession, claim: Claim, done: int) -> bool:
    """Note how far the task is. False when the task is no longer ours."""
    held = await _held(session, claim)
    if held is None:
        return False
    job, task = held
    task.progress = done
    await recount(session, job)
    await _tell_progress(session, job)
    return True


async def _startable(session: WriteSession, entry: queue.Entry) -> tuple[Job, JobTask] | None:
    """The locked rows of an entry's task; the entry is removed when there is nothing to run."""
    found = await session.get(JobTask, entry.task_id)
    job = None if found is None else await lock_job(session, found.job_id)
    task = None if job is None else await lock_task(session, entry.task_id)
    if job is None or task is None or task.state not in {"queued", "running"}:
        await queue.remove(session, entry)
        return None
    return job, task


async def _held(session: WriteSession, claim: Claim) -> tuple[Job, JobTask] | None:
    """The locked rows while (worker, attempt) still holds the task."""
    job = await lock_job(session, claim.task.job_id)
    task = None if job is None else await lock_task(session, claim.entry.task_id)
    if job is None or task is None or task.state != "running":
        return None
    if (task.worker, task.attempt) != (claim.worker, claim.attempt):
        return None
    return job, task


async def _back_to_queue(session: WriteSession, job: Job, task: JobTask, delay: timedelta) -> None:
    task.state, task.worker, task.heartbeat_at, task.progress = "queued", None, None, 0
    await recount(session, job)
    await queue.postpone(session, task, delay)


async def _end_task(session: WriteSession, job: Job, task: JobTask, *, state: str) -> None:
    """The task needs no worker any more; whatever that lets go, goes."""
    task.state, task.finished_at = state, await database_now(session)
    if state != "done":
        task.progress = 0
    await recount(session, job)
    await queue.drop(session, [task.id])
    if state == "dead":
        await append_event(
            session,
            job.id,
            type="task_dead",
            data={**label(job, task), "attempts": task.attempt, "error": task.error},
        )
    elif state == "done":
        await _tell_progress(session, job)
    await advance(session, job)


async def _tell_progress(session: WriteSession, job: Job) -> None:
    await append_progress(session, job.id, {"stage": job.stage, "done": job.done, "total": job.total})


async def _record_crash(session: WriteSession, job: Job, task: JobTask) -> None:
    """The last attempt ended without a word: it counts, and it is the task's error for now."""
    before = task.error if task.error and task.error.get("type") == WORKER_DIED else {"attempts": []}
    task.error = describe_crash([*before["attempts"], task.attempt])
    await append_event(
        session,
        job.id,
        type="task_failed",
        data={**label(job, task), "attempt": task.attempt, "error": task.error},
    )
