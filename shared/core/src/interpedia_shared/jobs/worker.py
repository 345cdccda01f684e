"""A process that runs tasks: takes them from the queue, keeps them its own, and outlives its database."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from interpedia_shared.db.session import Database
from interpedia_shared.jobs import lifecycle, queue, upkeep
from interpedia_shared.jobs.attempt import Attempt
from interpedia_shared.jobs.connection import Backoff, DatabaseAway, DatabaseLink
from interpedia_shared.jobs.context import Handler, TaskContext
from interpedia_shared.jobs.errors import TaskCancelled, TaskLost, TaskReleased
from interpedia_shared.jobs.lifecycle import Claim, WorkerIdentity
from interpedia_shared.jobs.listener import listen
from interpedia_shared.jobs.timing import WorkerTiming
from interpedia_shared.settings import DatabaseSettings

log = structlog.get_logger(__name__)


class Worker:
    """Runs the tasks of one queue, `concurrency` at a time. One object is one run.

    Args:
        database_settings: its own pool is made from them; handlers get it as `context.database`.
        handlers: a handler for each kind of task.
        queue: the name of the queue.
        concurrency: how many handlers run at once.
        timing: how patient it is.
    """

    def __init__(
        self,
        database_settings: DatabaseSettings,
        handlers: Mapping[str, Handler],
        *,
        queue: str,
        concurrency: int = 1,
        timing: WorkerTiming | None = None,
    ) -> None:
        self._settings = database_settings
        self._handlers = handlers
        self._concurrency = concurrency
        self._timing = timing or WorkerTiming()
        identity = uuid.uuid4()
        self.identity = WorkerIdentity(
            name=f"{socket.gethostname()}:{os.getpid()}:{identity.hex[:8]}",
            id=identity,
            queue=queue,
            silent_for=self._timing.silent_for,
        )
        self._database = Database(database_settings)
        self._link = DatabaseLink(self._database, self._timing)
        self._running: dict[int, tuple[Attempt, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self.abandoned = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then give running tasks back and return within seconds.

        A database that goes away is waited for; what runs meanwhile runs on. Handlers that do not notice the
        stop in time are counted in `abandoned`: their threads may still be at work.

        Raises:
            ExceptionGroup: an error that waiting does not mend, such as a missing schema or a wrong password.
        """
        log.info("worker_started", worker=self.identity.name, queue=self.identity.queue)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [
                    group.create_task(self._listen()),
                    group.create_task(self._tick_for_ever()),
                    group.create_task(self._sweep_for_ever()),
                    group.create_task(self._wake_when(stop)),
                ]
                await self._take_until(stop, group)
                await self._drain()
                for keeper in keepers:
                    keeper.cancel()
        finally:
            await self._database.dispose()
            log.info("worker_stopped", worker=self.identity.name, abandoned=self.abandoned)

    async def _take_until(self, stop: asyncio.Event, group: asyncio.TaskGroup) -> None:
        while not stop.is_set():
            self._wake.clear()
            with suppress(DatabaseAway):
                if len(self._running) < self._concurrency and await self._take_one(group):
                    continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.poll_s):
                    await self._wake.wait()

    async def _take_one(self, group: asyncio.TaskGroup) -> bool:
        """Take the next entry, if there is one. What it carries may turn out to need nobody."""
        entry = await self._link.once(
            partial(
                queue.take,
                queue=self.identity.queue,
                holder=self.identity.id,
                stale_after=self._link.stale_after,
            )
        )
        if entry is None:
            return False
        claim = await self._link.once(
            partial(lifecycle.begin_attempt, entry=entry, worker=self.identity, busy=self._running.keys())
        )
        if claim is not None:
            attempt = Attempt(claim, self._context(claim))
            self._running[entry.task_id] = (attempt, group.create_task(self._run(attempt)))
        return True

    def _context(self, claim: Claim) -> TaskContext:
        task = claim.task
        return TaskContext(
            job_id=task.job_id,
            task_id=task.id,
            ordinal=task.ordinal,
            params=task.params,
            job_params=claim.job_params,
            database=self._database,
            weight=task.weight,
            attempt=claim.attempt,
        )

    async def _run(self, attempt: Attempt) -> None:
        task = attempt.claim.task
        try:
            step = await attempt.run(self._handlers.get(task.kind), self._timing)
            try:
                held = step is not None and await self._link.insist(step)
            except SQLAlchemyError as error:
                held = await self._link.insist(attempt.failure(error, self._timing))
            if not held:
                log.warning("task_not_ours", job=str(task.job_id), task=task.kind, ordinal=task.ordinal)
        finally:
            self._running.pop(task.id, None)
            self._wake.set()

    async def _drain(self) -> None:
        """Ask what runs to stop; what does not is given back for when this process is surely gone."""
        for attempt, _ in self._running.values():
            attempt.context.interrupt(TaskReleased("The worker is shutting down."))
        await self._wait_for_running(self._timing.shutdown_s)
        stuck = list(self._running.values())
        self.abandoned = len(stuck)
        for _, job in stuck:
            job.cancel()
        await self._wait_for_running(1.0)
        for attempt, _ in stuck:
            with suppress(DatabaseAway):
                await self._link.once(
                    partial(lifecycle.release, claim=attempt.claim, delay=self._timing.silent_for)
                )

    async def _wait_for_running(self, timeout_s: float) -> None:
        jobs = [job for _, job in self._running.values()]
        if jobs:
            await asyncio.wait(jobs, timeout=timeout_s)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._timing.tick_s)
            if self._running:
                with suppress(DatabaseAway):
                    await self._tick()

    async def _tick(self) -> None:
        """Tell the database that the tasks are alive and how far they are, and the tasks what it says."""
        attempts = [attempt for attempt, _ in self._running.values()]
        standings = await self._link.once(
            partial(upkeep.beat, worker=self.identity, entries=[attempt.claim.entry for attempt in attempts])
        )
        for attempt in attempts:
            standing = standings.get(attempt.claim.task.id)
            if standing is None or standing.attempt != attempt.claim.attempt:
                attempt.context.interrupt(TaskLost("Another worker has the task."))
            elif standing.cancel_requested:
                attempt.context.interrupt(TaskCancelled("The job was cancelled."))
            elif (done := attempt.context.done) != attempt.written:
                await self._link.once(partial(lifecycle.write_progress, claim=attempt.claim, done=done))
                attempt.written = done

    async def _sweep_for_ever(self) -> None:
        while True:
            with suppress(DatabaseAway):
                found = await self._link.once(partial(upkeep.sweep, worker=self.identity))
                if found:
                    log.warning("tasks_enqueued_again", count=found, queue=self.identity.queue)
            await asyncio.sleep(self._timing.sweep_s)

    async def _listen(self) -> None:
        backoff = Backoff(self._timing.reconnect_s)
        await listen(self._settings.asyncpg_url(), queue.channel(), self._wake.set, backoff)

    async def _wake_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()
