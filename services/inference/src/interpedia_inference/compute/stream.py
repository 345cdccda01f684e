"""What is being generated, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.generating import Events


def _ignore(index: int | None) -> None:
    del index


class GenerationStream:
    """Iterate over the steps of one request's outputs; leaving the block lets go of all that still run.

    Each item is a list of (which of the requests, event): one event for each output that got a token in that
    step. It ends when every output has finished or was dropped.
    """

    def __init__(self, ticket: Ticket, count: int) -> None:
        self._ticket = ticket
        self._open = set(range(count))
        self._queue: asyncio.Queue[Events | BaseException] = asyncio.Queue()
        self.on_drop: Callable[[int | None], None] = _ignore

    def put(self, events: Any) -> None:
        """Events of one step, or why there are no more; called on the event loop."""
        self._queue.put_nowait(events)

    def drop(self, index: int) -> None:
        """Finish one output, as when its stop string has come; the others go on."""
        if index in self._open:
            self._open.discard(index)
            self.on_drop(index)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Events:
        """The next step.

        Raises:
            Problem: the ticket is over, or the computation failed.
            EngineError: an output cannot be computed.
        """
        while self._open:
            events = await self._next()
            if isinstance(events, BaseException):
                raise events
            wanted = [(index, event) for index, event in events if index in self._open]
            self._open -= {index for index, event in wanted if event.finish is not None}
            if wanted:
                return wanted
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            self._open.clear()
            self.on_drop(None)

    async def _next(self) -> Events | BaseException:
        if not self._queue.empty():
            self._ticket.check()
            return self._queue.get_nowait()
        return await self._ticket.outcome(asyncio.ensure_future(self._queue.get()))
