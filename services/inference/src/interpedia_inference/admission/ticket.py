"""One request's right to compute: its time limit, whether its caller is still there, where its time went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from interpedia_inference.admission.cost import Cost
from interpedia_inference.metrics import ENDED, PHASES
from interpedia_shared.contracts.live.requests import Timings
from interpedia_shared.problems import ClientGone, DeadlineExceeded, Problem

T = TypeVar("T")


class Ticket:
    """Made on the event loop; `check`, `is_over` and `mark_slice` may be called on any thread.

    Args:
        route: Of which noun, for metrics.
        limit_s: Time until it is over by itself; None for work that has no deadline.
    """

    def __init__(self, route: str, limit_s: float | None) -> None:
        self.route = route
        self.cost = Cost()
        self.tokens_run = 0
        """Tokens computed for it so far: who got least is served next. The compute thread's own."""
        self._loop = asyncio.get_running_loop()
        self._over: Problem | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._entered = time.perf_counter()
        self._tokenize_s = 0.0
        self._started: float | None = None
        self._finished: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[Callable[[], None]] = []
        if limit_s is not None:
            self._timer = self._loop.call_later(limit_s, self._expire, limit_s)

    @property
    def has_deadline(self) -> bool:
        """Whether somebody waits for it; a job's work has none."""
        return self._timer is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be begun for it."""
        return self._over is not None

    def check(self) -> None:
        """Pass while the request may go on.

        Raises:
            Problem: why it is over: DeadlineExceeded, ClientGone, …
        """
        if self._over is not None:
            raise self._over

    def end(self, problem: Problem) -> None:
        """Stop the request; only the first reason counts. Event loop only."""
        if self._over is not None:
            return
        self._over = problem
        ENDED.labels(problem.slug).inc()
        self._conclude()

    def close(self) -> None:
        """The request is answered: let go of whatever it still has in the compute thread. Event loop only."""
        if self._over is None:
            self._over = ClientGone()
            self._conclude()
        self._observe()

    def when_over(self, listener: Callable[[], None]) -> None:
        """Call `listener` once it is over, on the event loop."""
        self._listeners.append(listener)

    async def outcome(self, work: asyncio.Future[T]) -> T:
        """Wait for `work` or the end of the ticket, whatever comes first.

        Raises:
            Problem: the ticket was over first.
        """
        try:
            await asyncio.wait({work, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                work.cancel()
        if work.done() and not work.cancelled():
            return work.result()
        self.check()
        raise AssertionError("neither done nor over")

    def tokenized(self, seconds: float) -> None:
        """Add time that was spent on tokenising."""
        self._tokenize_s += seconds

    def mark_slice(self, started: float, finished: float) -> None:
        """The compute thread worked for it from `started` to `finished` (`time.perf_counter`)."""
        if self._started is None:
            self._started = started
        self._finished = finished

    def timings(self) -> Timings:
        """Where the time went until now."""
        now = time.perf_counter()
        started = self._started if self._started is not None else now
        finished = self._finished if self._finished is not None else started
        total = now - self._entered
        queue = max(0.0, started - self._entered - self._tokenize_s) if self._started is not None else 0.0
        return Timings(
            tokenize_ms=_ms(self._tokenize_s),
            queue_ms=_ms(queue),
            run_ms=_ms(finished - started),
            total_ms=_ms(total),
        )

    def _expire(self, limit_s: float) -> None:
        self.end(
            DeadlineExceeded(
                f"Not done within {limit_s:g} s; what was begun is dropped.", extensions={"limit_s": limit_s}
            )
        )

    def _conclude(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended.done():
            self._ended.set_result(None)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def _observe(self) -> None:
        timings = self.timings()
        PHASES.labels(self.route, "tokenize").observe(timings.tokenize_ms / 1e3)
        if self._started is not None:
            PHASES.labels(self.route, "queue").observe(timings.queue_ms / 1e3)
            PHASES.labels(self.route, "run").observe(timings.run_ms / 1e3)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
