"""How many calls to one endpoint may be under way: adaptive concurrency, rates, and pauses it asked for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

WINDOW_S = 60.0

Ending = Literal["ok", "limited", "failed"]


@dataclass(slots=True)
class Ticket:
    """The right to send one call; `tokens` is corrected when the answer tells."""

    started: float
    tokens: int


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[Ticket]
    tokens: int


class Limiter:
    """First come, first served. Not for use from several threads.

    The concurrency is halved when the endpoint says that there is too much (once for all calls that were sent
    before it said so), and grows by one for each round of calls that went well. Requests and tokens of any
    60 seconds stay within the limits of the settings.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = concurrency
        self._limit = float(concurrency)
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._in_flight = 0
        self._waiters: deque[_Waiter] = deque()
        self._window: deque[Ticket] = deque()
        self._window_tokens = 0
        self._held_until = 0.0
        self._last_cut = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._limit))

    @property
    def most(self) -> int:
        """Calls that may ever be in flight."""
        return self._most

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._in_flight

    async def acquire(self, tokens: int) -> Ticket:
        """Wait for the right to send a call of about so many tokens."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), tokens)
        self._waiters.append(waiter)
        self._pump()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                self.release(waiter.future.result(), "failed")
            else:
                self._waiters.remove(waiter)
                self._pump()
            raise

    def release(self, ticket: Ticket, ending: Ending, *, tokens: int | None = None) -> None:
        """End a call; `tokens` is what it really took."""
        self._in_flight -= 1
        if tokens is not None:
            if ticket in self._window:
                self._window_tokens += tokens - ticket.tokens
            ticket.tokens = tokens
        if ending == "ok":
            self._limit = min(float(self._most), self._limit + 1.0 / self._limit)
        elif ending == "limited" and ticket.started >= self._last_cut:
            self._limit = max(1.0, self._limit / 2)
            self._last_cut = self._clock()
        self._pump()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the endpoint asked for it."""
        self._held_until = max(self._held_until, self._clock() + seconds)
        self._pump()

    def _pump(self) -> None:
        """Let go whoever may, and look again when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters and self._in_flight < self.limit:
            if self._waiters[0].future.done():
                self._waiters.popleft()
                continue
            now = self._clock()
            wait = self._wait(self._waiters[0].tokens, now)
            if wait > 0:
                self._timer = asyncio.get_running_loop().call_later(wait, self._pump)
                return
            self._grant(self._waiters.popleft(), now)

    def _grant(self, waiter: _Waiter, now: float) -> None:
        ticket = Ticket(now, waiter.tokens)
        self._in_flight += 1
        if self._requests_per_minute is not None or self._tokens_per_minute is not None:
            self._window.append(ticket)
            self._window_tokens += ticket.tokens
        waiter.future.set_result(ticket)

    def _wait(self, tokens: int, now: float) -> float:
        """Seconds until a call of so many tokens is within all limits."""
        while self._window and self._window[0].started <= now - WINDOW_S:
            self._window_tokens -= self._window.popleft().tokens
        wait = self._held_until - now
        count, sum_tokens = len(self._window), self._window_tokens
        for ticket in self._window:
            if not self._is_over(count, sum_tokens + tokens):
                break
            wait = max(wait, ticket.started + WINDOW_S - now)
            count, sum_tokens = count - 1, sum_tokens - ticket.tokens
        return max(0.0, wait)

    def _is_over(self, count: int, tokens: int) -> bool:
        """Whether one call more is too much; a call over the token limit by itself goes when it is alone."""
        requests, token_cap = self._requests_per_minute, self._tokens_per_minute
        return (requests is not None and count >= requests) or (
            token_cap is not None and tokens > token_cap and count > 0
        )
