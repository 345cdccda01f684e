"""How a handler's trouble ends its task: what waiting or money mends stops the job until it is retried."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import select

from interpedia_autointerp.llm import JobPaused
from interpedia_shared.db.models import JobEvent
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import TaskContext, TaskFailed
from interpedia_shared.jobs.errors import JOB_PAUSED
from interpedia_shared.problems import EndpointFailed

_CHECK_S = 0.5


def paused(reason: str, detail: str, retry_after_s: float | None = None) -> TaskFailed:
    """The error of a task that waits for somebody: what it has is kept, and a retry goes on from there."""
    extensions: dict[str, object] = {"reason": reason}
    if retry_after_s is not None:
        extensions["retry_after_s"] = retry_after_s
    return TaskFailed(
        f"{detail} The job waits: POST /v1/jobs/{{id}}/retry goes on from here, and pays for nothing twice.",
        type=JOB_PAUSED,
        title="Job paused",
        extensions=extensions,
    )


@asynccontextmanager
async def stoppable(context: TaskContext) -> AsyncGenerator[None]:
    """Run a handler's work: it ends at once on a cancel, and pauses the job when money is out.

    Raises:
        TaskFailed: the job is paused.
        TaskCancelled: see `TaskContext.check`.
    """
    await _raise_if_paused(context)
    worker = asyncio.current_task()
    assert worker is not None
    watch = asyncio.create_task(_interrupt(worker, context))
    try:
        yield
    except (JobPaused, EndpointFailed) as error:
        raise _ending(error) from error
    except asyncio.CancelledError:
        if context.interruption is None:
            raise
        worker.uncancel()
        context.check()
    except BaseExceptionGroup as group:
        raise _first(group) from group
    finally:
        watch.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that matters of several failures at once."""
    leaf: BaseException = group.subgroup(JobPaused) or group.subgroup(EndpointFailed) or group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return _ending(leaf)


def _ending(error: BaseException) -> BaseException:
    """The error of the task: one that trying again at once cannot mend is final."""
    if isinstance(error, JobPaused):
        return paused(error.reason, error.detail, error.retry_after_s)
    if isinstance(error, EndpointFailed) and error.reason != "unreachable":
        return TaskFailed.from_problem(error)
    return error


async def _interrupt(worker: asyncio.Task[object], context: TaskContext) -> None:
    while context.interruption is None:  # noqa: ASYNC110 (it is set by the worker's heartbeat, not by us)
        await asyncio.sleep(_CHECK_S)
    worker.cancel()


async def _raise_if_paused(context: TaskContext) -> None:
    """The other tasks of a paused job end before they ask anything."""
    error = await _pause_of(context.database, context.job_id)
    if error is not None:
        raise TaskFailed(
            error["detail"], type=JOB_PAUSED, title="Job paused", extensions={"reason": error.get("reason")}
        )


async def _pause_of(database: Database, job_id: uuid.UUID) -> dict[str, str] | None:
    async with database.read() as session:
        last = await session.scalar(
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.type.in_(("task_dead", "retried")))
            .order_by(JobEvent.id.desc())
            .limit(1)
        )
    if last is None or last.type != "task_dead":
        return None
    error = last.data.get("error") or {}
    return error if error.get("type") == JOB_PAUSED else None
