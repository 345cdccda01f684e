"""One handler, run once; whatever it does becomes one step of its task's life."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial

import structlog

from interpedia_shared.db.base import JSON
from interpedia_shared.jobs import lifecycle
from interpedia_shared.jobs.connection import Step
from interpedia_shared.jobs.context import Handler, TaskContext
from interpedia_shared.jobs.errors import (
    TaskCancelled,
    TaskLost,
    TaskReleased,
    describe_failure,
    is_permanent,
)
from interpedia_shared.jobs.lifecycle import Claim
from interpedia_shared.jobs.timing import WorkerTiming

log = structlog.get_logger(__name__)


class NoHandler(Exception):
    """This worker does not know the task's kind: it is older or newer than who made the job."""


class HandlerCancelled(Exception):
    """The handler was cancelled from within, not by this worker."""


@dataclass
class Attempt:
    """A claimed task with what its handler sees; `written` is the progress that the database has."""

    claim: Claim
    context: TaskContext
    written: int = 0

    async def run(self, handler: Handler | None, timing: WorkerTiming) -> Step[bool] | None:
        """Run the handler to its end. The step that records how it went, or None when nobody may."""
        claim = self.claim
        log.info("task_started", **self._names())
        try:
            if handler is None:
                raise NoHandler(claim.task.kind)
            result = _checked(await handler(self.context))
        except TaskCancelled as error:
            return self._stopped(error, timing)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self.failure(HandlerCancelled(), timing)
        except Exception as error:  # noqa: BLE001 a handler may fail in any way; the worker lives on
            return self.failure(error, timing)
        return partial(lifecycle.finish, claim=claim, result=result)

    def _stopped(self, error: TaskCancelled, timing: WorkerTiming) -> Step[bool] | None:
        """What follows is decided by the worker's reason; a handler that stops without one has failed."""
        match self.context.interruption:
            case TaskLost():
                return None
            case TaskReleased():
                return partial(lifecycle.release, claim=self.claim)
            case TaskCancelled():
                return partial(lifecycle.cancel, claim=self.claim)
            case None:
                return self.failure(error, timing)

    def failure(self, error: Exception, timing: WorkerTiming) -> Step[bool]:
        """The step that records this error, which is logged with its traceback here."""
        claim = self.claim
        log.error("task_attempt_failed", exc_info=error, **self._names())
        return partial(
            lifecycle.fail,
            claim=claim,
            error=describe_failure(error, where=claim.where),
            retry_in=None if is_permanent(error) else timing.retry_in(claim.attempt),
        )

    def _names(self) -> dict[str, object]:
        task = self.claim.task
        return {
            "job": str(task.job_id),
            "task": task.kind,
            "ordinal": task.ordinal,
            "attempt": self.claim.attempt,
        }


def _checked(result: JSON | None) -> JSON | None:
    """The result, if Postgres can keep it as JSON: no NaN, no NUL, no foreign types.

    Raises:
        TypeError: something in it is not JSON.
        ValueError: a number is not finite, or a text holds a NUL character.
    """
    if "\\u0000" in json.dumps(result, allow_nan=False):
        raise ValueError("a text in the result holds a NUL character")
    return result
