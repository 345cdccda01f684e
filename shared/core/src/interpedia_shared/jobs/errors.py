"""How a task ends otherwise than well, and what of it the API shows.

TaskFailed        a permanent failure: the task is dead at once
TaskCancelled     stop now, nobody wants the result
├── TaskReleased  the worker is shutting down; the attempt does not count
└── TaskLost      another worker has the task
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from interpedia_shared.db.base import JSON
from interpedia_shared.problems import Problem

WORKER_DIED = "worker-died"
TASK_FAILED = "task-failed"
JOB_PAUSED = "job-paused"


class TaskFailed(Exception):
    """A failure that trying again cannot mend: no further attempt is made.

    Args:
        detail: one sentence for people that names the fact; it is shown to callers as it is.
        type: the slug of the problem page.
        title: what the type means, in a few words.
        extensions: further members for programs.
    """

    def __init__(
        self,
        detail: str,
        *,
        type: str = TASK_FAILED,  # noqa: A002 the member's name in RFC 9457
        title: str = "Task failed",
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.type = type
        self.title = title
        self.detail = detail
        self.extensions = dict(extensions or {})

    @classmethod
    def from_problem(cls, problem: Problem) -> TaskFailed:
        """The same facts as a problem of the API."""
        return cls(
            problem.detail, type=problem.slug, title=problem.title, extensions=dict(problem.extensions)
        )

    def body(self) -> JSON:
        """What `error` of the job and of the task shows."""
        return {"type": self.type, "title": self.title, "detail": self.detail, **self.extensions}


class TaskCancelled(Exception):
    """The job was cancelled, or this worker is to stop for another reason (see the subclasses)."""


class TaskReleased(TaskCancelled):
    """The worker is shutting down: the task goes back to the queue and the attempt does not count."""


class TaskLost(TaskCancelled):
    """The worker was thought dead and another one has the task: what this one still does is dropped."""


def is_permanent(error: Exception) -> bool:
    """True when another attempt would fail alike: the input is wrong, not the moment."""
    return isinstance(error, TaskFailed) or (isinstance(error, Problem) and error.status < 500)


def describe_failure(error: Exception, *, where: str) -> JSON:
    """What may be shown of a handler's exception: never its text, unless it was written for callers.

    Args:
        error: what the handler raised.
        where: the task and attempt, for finding the traceback in the log.
    """
    if isinstance(error, Problem):
        error = TaskFailed.from_problem(error)
    if isinstance(error, TaskFailed):
        return error.body()
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        name = f"{name} ({os.strerror(error.errno)})"
    return {
        "type": "internal-error",
        "title": "Internal error",
        "detail": f"{name} in {where}. The worker's log has the details.",
        "exception": type(error).__name__,
    }


def describe_crash(attempts: Sequence[int]) -> JSON:
    """The error of a task whose worker vanished during these attempts, which are in order."""
    first, last = attempts[0], attempts[-1]
    which = (
        f"attempt {last}" if first == last else f"attempts {', '.join(map(str, attempts[:-1]))} and {last}"
    )
    return {
        "type": WORKER_DIED,
        "title": "Worker died",
        "detail": f"The worker process died, or lost the database for too long, during {which}.",
        "attempts": list(attempts),
    }
