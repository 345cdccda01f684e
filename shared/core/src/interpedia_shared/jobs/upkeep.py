"""What a worker does besides its tasks: keep them its own, find lost ones, tidy up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, update

from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import WriteSession
from interpedia_shared.jobs import queue
from interpedia_shared.jobs.lifecycle import WorkerIdentity
from interpedia_shared.jobs.repository import tasks_without_worker

KEEP_QUEUE_LOG = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task that this worker holds looks from the database."""

    attempt: int
    cancel_requested: bool


async def beat(
    session: WriteSession, worker: WorkerIdentity, entries: Sequence[queue.Entry]
) -> dict[int, Standing]:
    """Keep the tasks this worker's for another while. Those missing in the answer are no longer its own."""
    rows = await session.execute(
        update(JobTask)
        .where(
            JobTask.job_id == Job.id,
            JobTask.id.in_([entry.task_id for entry in entries]),
            JobTask.worker == worker.name,
            JobTask.state == "running",
        )
        .values(heartbeat_at=func.clock_timestamp())
        .returning(JobTask.id, JobTask.attempt, Job.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    standings = {task_id: Standing(attempt, cancelled) for task_id, attempt, cancelled in rows}
    await queue.beat(session, [entry for entry in entries if entry.task_id in standings])
    return standings


async def sweep(session: WriteSession, worker: WorkerIdentity) -> int:
    """Enqueue tasks that should have a queue entry and have none; returns how many.

    One too many does no harm: an entry of a task that needs nobody is dropped when it is taken.
    """
    tasks = await tasks_without_worker(session, worker.queue, silent_for=worker.silent_for)
    entered = await queue.entered(session, [task.id for task in tasks])
    lost = [task for task in tasks if task.id not in entered]
    await queue.enqueue(session, lost)
    await queue.purge_log(session, older_than=KEEP_QUEUE_LOG)
    return len(lost)
