"""What follows when tasks have ended: the next stage, or the end of the job."""

from __future__ import annotations

from typing import Literal

from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Job
from interpedia_shared.db.session import WriteSession
from interpedia_shared.jobs import queue
from interpedia_shared.jobs.events import append_event
from interpedia_shared.jobs.repository import (
    database_now,
    first_dead_task,
    first_unfinished_stage,
    states_in_stage,
    waiting_to_queued,
)


async def advance(session: WriteSession, job: Job) -> None:
    """Start the next stage or end the job, if nothing of this stage is left to run.

    The caller holds the job's row lock, so of two tasks that end at once the second one sees the first.
    """
    stage = await first_unfinished_stage(session, job.id)
    if stage is None:
        await _end(session, job, "succeeded", {"done": job.done, "total": job.total, "result": job.result})
        return
    states = await states_in_stage(session, job.id, stage)
    if states & {"queued", "running"}:
        return
    if job.cancel_requested:
        await _end(session, job, "cancelled", {"done": job.done, "total": job.total})
    elif "dead" in states:
        dead = await first_dead_task(session, job.id)
        job.error = dead.error if dead is not None else None
        await _end(session, job, "failed", {"error": job.error})
    else:
        await start_stage(session, job, stage)


async def start_stage(session: WriteSession, job: Job, stage: int) -> None:
    """Queue the waiting tasks of a stage, in this transaction."""
    if job.stage != job.stages[stage]:
        job.stage = job.stages[stage]
        await append_event(session, job.id, type="stage", data={"stage": job.stage})
    await queue.enqueue(session, await waiting_to_queued(session, job.id, stage))


async def _end(
    session: WriteSession, job: Job, state: Literal["succeeded", "failed", "cancelled"], data: JSON
) -> None:
    job.state = state
    job.finished_at = await database_now(session)
    await append_event(session, job.id, type=state, data=data)
