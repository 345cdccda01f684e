"""How patient workers are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class WorkerTiming:
    """All in seconds; the same for all workers of a queue.

    Args:
        heartbeat_timeout_s: a worker that is silent for longer has died: its tasks go to others.
        poll_s: how often to look for work when nothing tells of any (delayed retries, a lost notification).
        sweep_s: how often to look for tasks that lost their queue entry.
        retry_base_s: the pause after a task's first failure; it doubles with each further one.
        retry_limit_s: the longest such pause.
        shutdown_s: how long running handlers get to notice that the worker is to stop.
    """

    heartbeat_timeout_s: float = 8.0
    poll_s: float = 2.0
    sweep_s: float = 30.0
    retry_base_s: float = 2.0
    retry_limit_s: float = 60.0
    shutdown_s: float = 10.0

    @property
    def silent_for(self) -> timedelta:
        """`heartbeat_timeout_s` as a duration."""
        return timedelta(seconds=self.heartbeat_timeout_s)

    @property
    def tick_s(self) -> float:
        """How often heartbeat and progress are written and cancellation is looked for."""
        return min(1.0, self.heartbeat_timeout_s / 8)

    @property
    def reconnect_s(self) -> float:
        """The longest pause between attempts to reach the database, well within the heartbeat timeout."""
        return min(2.0, self.heartbeat_timeout_s / 4)

    def retry_in(self, attempt: int) -> timedelta:
        """The pause after this attempt failed; attempts count from 1."""
        return timedelta(seconds=min(self.retry_base_s * 2 ** (attempt - 1), self.retry_limit_s))
