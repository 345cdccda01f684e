"""What a handler sees of its task."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from interpedia_shared.db.base import JSON
from interpedia_shared.db.session import Database
from interpedia_shared.jobs.errors import TaskCancelled


@dataclass
class TaskContext:
    """One attempt at one task. `report` and `check` are cheap and may be called from any thread.

    Blocking work belongs in a thread (`asyncio.to_thread`): the worker's heartbeat shares the event loop.
    """

    job_id: uuid.UUID
    task_id: int
    ordinal: int
    params: JSON
    job_params: JSON
    database: Database
    weight: int = 1
    attempt: int = 1
    _done: int = field(default=0, init=False)
    _interruption: TaskCancelled | None = field(default=None, init=False)

    @property
    def done(self) -> int:
        """Units of work reported so far."""
        return self._done

    @property
    def interruption(self) -> TaskCancelled | None:
        """Why the work is no longer wanted; None while it is."""
        return self._interruption

    def report(self, done: int) -> None:
        """Say how many of the task's `weight` units are done; the worker writes it down within a second.

        Raises:
            ValueError: `done` is outside 0..weight.
        """
        if not 0 <= done <= self.weight:
            raise ValueError(f"done: {done} is outside 0..{self.weight}, the task's weight")
        self._done = done

    def check(self) -> None:
        """Return while the work is wanted. Call it every second or so, where stopping is easy.

        Raises:
            TaskCancelled: the job was cancelled; or its subclasses: the worker shuts down or lost the task.
        """
        if self._interruption is not None:
            raise type(self._interruption)(*self._interruption.args)

    def interrupt(self, reason: TaskCancelled) -> None:
        """Make `check` raise from now on; the first reason stays. For the worker."""
        if self._interruption is None:
            self._interruption = reason


Handler = Callable[[TaskContext], Awaitable[JSON | None]]
