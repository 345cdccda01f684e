"""Who is let in: a bounded queue, counted in requests, tokens and bytes."""

from __future__ import annotations

import math
import time

from interpedia_inference.admission.cost import Cost
from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.metrics import QUEUE_DEPTH, QUEUE_TOKENS, REFUSED
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.problems import Busy, Problem, TooLarge, Unavailable

_MAX_WAIT_S = 60
_FIRST_GUESS = 200.0
"""Tokens per second until something was measured: a small model on one core."""
_MEMORY_OF_RATE = 0.9


class Admission:
    """Keeps account of the requests that wait or run. Event loop only."""

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        self._tickets: set[Ticket] = set()
        self._held = Cost()
        self._done_tokens, self._busy_s = _FIRST_GUESS, 1.0
        self._seen = 0.0
        self._closed = False

    @property
    def depth(self) -> int:
        """Requests waiting or running."""
        return len(self._tickets)

    def enter(self, route: str, deadline_s: float | None) -> Ticket:
        """Let a request in; its cost is charged once it is known.

        Raises:
            Busy: as many are in as may be.
            Unavailable: the service stops.
        """
        if self._closed:
            raise Unavailable("This host is shutting down.", retry_after_s=2)
        limit = self._settings.max_queue
        if len(self._tickets) >= limit:
            raise self._busy("requests", limit, len(self._tickets) + 1)
        return self._keep(Ticket(route, deadline_s or self._settings.deadline_s))

    def enter_background(self, route: str) -> Ticket:
        """Let in work of a job: it has no deadline, and is not counted against the queue's length."""
        return Ticket(route, None)

    def charge(self, ticket: Ticket, cost: Cost) -> None:
        """Add to what a request takes.

        Raises:
            TooLarge: no host as this one would ever take it.
            Busy: together with what is in, it is too much now.
        """
        settings, total = self._settings, ticket.cost + cost
        if total.tokens > settings.max_request_tokens:
            raise _too_large("tokens", settings.max_request_tokens, total.tokens)
        if total.bytes > settings.max_memory_bytes:
            raise _too_large("bytes", settings.max_memory_bytes, total.bytes)
        held = self._held + cost
        others = len(self._tickets) > 1
        if others and held.tokens > settings.max_queue_tokens:
            raise self._busy("tokens", settings.max_queue_tokens, held.tokens)
        if others and held.bytes > settings.max_memory_bytes:
            raise self._busy("bytes", settings.max_memory_bytes, held.bytes)
        ticket.cost = total
        if ticket in self._tickets:
            self._held = held
            QUEUE_TOKENS.set(held.tokens)

    def leave(self, ticket: Ticket) -> None:
        """The request is answered, refused or gone."""
        was_over = ticket.is_over
        ticket.close()
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._learn(0 if was_over else ticket.cost.tokens)
            self._held = Cost(self._held.tokens - ticket.cost.tokens, self._held.bytes - ticket.cost.bytes)
            QUEUE_DEPTH.set(len(self._tickets))
            QUEUE_TOKENS.set(self._held.tokens)

    def close(self, problem: Problem) -> None:
        """Let nobody in any more, and end who is in."""
        self._closed = True
        for ticket in list(self._tickets):
            ticket.end(problem)

    def wait_s(self) -> int:
        """Seconds that what is in will take, at the present speed."""
        rate = self._done_tokens / self._busy_s
        return max(1, min(_MAX_WAIT_S, math.ceil(self._held.tokens / max(rate, 1.0))))

    def _learn(self, tokens: int) -> None:
        """Count what was answered since the last request left, and the time that it took.

        Tokens that are generated, ablated or only read take different times; what counts is the mixture.
        """
        now = time.perf_counter()
        self._done_tokens = _MEMORY_OF_RATE * self._done_tokens + tokens
        self._busy_s = _MEMORY_OF_RATE * self._busy_s + now - self._seen
        self._seen = now

    def _keep(self, ticket: Ticket) -> Ticket:
        if not self._tickets:
            self._seen = time.perf_counter()
        self._tickets.add(ticket)
        QUEUE_DEPTH.set(len(self._tickets))
        return ticket

    def _busy(self, what: str, limit: int, value: int) -> Busy:
        REFUSED.labels(what).inc()
        wait = self.wait_s()
        return Busy(
            f"The queue is full: {value} {what} would be over the limit of {limit}. Try again in {wait} s.",
            extensions={"what": what, "limit": limit, "value": value},
            retry_after_s=wait,
        )


def _too_large(what: str, limit: int, value: int) -> TooLarge:
    REFUSED.labels(f"request_{what}").inc()
    return TooLarge(
        f"This request needs {value} {what}, one request may take {limit}.",
        extensions={"what": what, "limit": limit, "value": value},
    )
