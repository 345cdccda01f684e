"""Between a task and the numeric work in its thread: progress one way, cancellation the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from interpedia_engine.errors import EngineError
from interpedia_ingest.dashboards.errors import BadSpill, BuildCancelled, DashboardError
from interpedia_ingest.dashboards.watch import Watch
from interpedia_shared.jobs import TaskCancelled, TaskContext, TaskFailed

T = TypeVar("T")


def watch(context: TaskContext) -> Watch:
    """Report to a task's row, and stop when the task is no longer wanted."""

    def progress(done: int, total: int) -> None:
        context.report(context.weight * done // total)

    def should_cancel() -> bool:
        try:
            context.check()
        except TaskCancelled:
            return True
        return False

    return Watch(progress, should_cancel)


async def in_thread(context: TaskContext, work: Callable[[], T]) -> T:
    """Run numeric work beside the event loop.

    Raises:
        TaskCancelled: the task is no longer wanted; which kind is for the worker to know.
        TaskFailed: the input gives no dashboards, and would not on another attempt.
    """
    try:
        return await asyncio.to_thread(work)
    except BuildCancelled:
        context.check()
        raise
    except BadSpill:
        raise
    except (DashboardError, EngineError) as error:
        raise TaskFailed(
            f"{error.field}: {error.detail}",
            type="bad-sae",
            title="SAE refused",
            extensions={"field": error.field},
        ) from error
