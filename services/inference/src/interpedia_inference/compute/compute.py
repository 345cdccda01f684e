"""The compute thread as coroutines see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar, cast

from interpedia_engine.generation import GenerationRequest
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.calling import Call
from interpedia_inference.compute.contract import ReadJob, ReadResult
from interpedia_inference.compute.delivery import Delivery
from interpedia_inference.compute.generating import Group
from interpedia_inference.compute.reads import ReadEntry
from interpedia_inference.compute.stream import GenerationStream
from interpedia_inference.compute.worker import ComputeThread
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.problems import HostNotReady

T = TypeVar("T")


class Compute:
    """Hands work to the one thread that owns torch. Made and used on one event loop.

    Args:
        settings: Sizes of batches, threads.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        self._running: ComputeThread | None = None

    @property
    def running(self) -> ComputeThread:
        """The thread.

        Raises:
            HostNotReady: there is none yet, or no more.
        """
        if self._running is None:
            raise HostNotReady("This host has no model loaded.", retry_after_s=2)
        return self._running

    def start(self, model: LanguageModel) -> None:
        """Begin to compute with a model."""
        delivery = Delivery(asyncio.get_running_loop())
        self._running = ComputeThread(model, self._settings, delivery=delivery)
        self._delivery = delivery
        self._running.start()

    async def stop(self) -> None:
        """End after the slice in hand; whoever waits gets 503."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(running.stop)

    async def read(self, job: ReadJob, ticket: Ticket) -> list[ReadResult]:
        """Read one text; results in the order of `job.readings`. See `compute.contract`.

        Raises:
            Problem: the ticket is over, or the computation failed.
            EngineError: the job asks for what cannot be.
        """
        return (await self.read_all([job], ticket))[0]

    async def read_all(self, jobs: Sequence[ReadJob], ticket: Ticket) -> list[list[ReadResult]]:
        """Read several texts of one request; they share forward passes with one another and with others.

        Raises:
            Problem, EngineError: as `read`, of the first that fails.
        """
        thread = self.running
        ticket.check()
        futures = [self._future() for _ in jobs]
        entries = [
            ReadEntry(job, ticket, self._settle(future)) for job, future in zip(jobs, futures, strict=True)
        ]

        def add() -> None:
            for entry in entries:
                thread.add_read(entry)

        thread.submit(add)
        return cast("list[list[ReadResult]]", await ticket.outcome(asyncio.gather(*futures)))

    def generate(self, requests: Sequence[GenerationRequest], ticket: Ticket) -> GenerationStream:
        """Generate outputs together, beside those of other callers.

        Raises:
            EngineError: a request could never run; later failures come out of the stream.
        """
        thread = self.running
        ticket.check()
        thread.generating.check(requests)
        stream = GenerationStream(ticket, len(requests))

        def deliver(events: Any) -> None:
            self._delivery.put(lambda: stream.put(events))

        group = Group(requests, ticket, deliver)
        stream.on_drop = lambda index: thread.submit(lambda: thread.generating.drop(group, index))
        ticket.when_over(lambda: thread.submit(lambda: thread.generating.drop(group)))
        thread.submit(lambda: thread.add_group(group))
        return stream

    async def call(
        self,
        function: Callable[[], Generator[Any, None, T]] | Callable[[], T],
        ticket: Ticket,
        *,
        progress: Callable[[Any], None] | None = None,
        is_background: bool = False,
    ) -> T:
        """Call a function on the compute thread; a generator is run to its end, other work between its steps.

        Args:
            function: Makes the generator, or computes the result in one go of at most ~0.3 s.
            ticket: Looked at between the steps.
            progress: Takes what the generator yields, on the event loop.
            is_background: Take a fifth of the time when there is other work (jobs).

        Raises:
            Problem: the ticket is over, or the computation failed.
            EngineError: the function raised it.
        """
        thread = self.running
        ticket.check()
        future = self._future()
        call = Call(function, ticket, self._settle(future), progress, is_background)
        thread.submit(lambda: thread.add_call(call))
        return cast("T", await ticket.outcome(future))

    def _future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _settle(self, future: asyncio.Future[Any]) -> Callable[[Any], None]:
        """What the compute thread calls with a result or an exception."""

        def settle(outcome: Any) -> None:
            if future.done():
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        return lambda outcome: self._delivery.put(lambda: settle(outcome))
