"""Living with a database that goes away: which errors pass by themselves, and how to go on afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.jobs.timing import WorkerTiming

log = structlog.get_logger(__name__)
T = TypeVar("T")
Step = Callable[[WriteSession], Awaitable[T]]

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
# A connection that died without a word (a pulled cable) must not hang a worker for ever.
STEP_TIMEOUT_S = 60.0
FIRST_DELAY_S = 0.1
NEVER = timedelta(days=365)
# Classes of SQLSTATE that say nothing about the statement: connection, rollback (deadlock), resources,
# operator (shutting down, starting up, cancelled), system, internal.
PASSING_CLASSES = ("08", "40", "53", "57", "58", "XX")


class DatabaseAway(Exception):
    """The database cannot be reached, or is in trouble, right now."""


def is_passing(error: BaseException | None) -> bool:
    """True for an error that may be gone later: the database was away, or in trouble."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or is_passing(error.__cause__):
            return True
        return _in_passing_class(error.orig)
    if isinstance(error, asyncpg.PostgresError):
        return _in_passing_class(error)
    return isinstance(error, OSError | TimeoutError | PoolTimeout | asyncpg.InterfaceError)


def _in_passing_class(error: BaseException | None) -> bool:
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and state.startswith(PASSING_CLASSES)


class Backoff:
    """Pauses that double up to a limit, until something succeeds."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._next_s = FIRST_DELAY_S

    def reset(self) -> None:
        """It worked: the next pause is short again."""
        self._next_s = FIRST_DELAY_S

    async def sleep(self) -> None:
        """Wait for the next pause."""
        pause = min(self._next_s, self._longest_s)
        self._next_s = pause * 2
        await asyncio.sleep(pause)


class DatabaseLink:
    """A worker's transactions. It knows when the database was away, and what follows from that."""

    def __init__(self, database: Database, timing: WorkerTiming) -> None:
        self.database = database
        self._timing = timing
        self._away = False
        self._calm_until = time.monotonic() + timing.heartbeat_timeout_s

    @property
    def stale_after(self) -> timedelta:
        """How long a heartbeat must be missing before its task is taken over.

        Right after the start and after an outage nobody's is: the others need time to be heard again first.
        """
        return NEVER if time.monotonic() < self._calm_until else self._timing.silent_for

    async def once(self, step: Step[T]) -> T:
        """Run one step in a transaction of its own.

        Raises:
            DatabaseAway: it may go better later; nobody knows whether the step was committed.
        """
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S), self.database.write() as session:
                result = await step(session)
        except DATABASE_ERRORS as error:
            if not is_passing(error):
                raise
            self._went_away(error)
            raise DatabaseAway from error
        if self._away:
            self._away = False
            log.info("database_back")
        return result

    async def insist(self, step: Step[T]) -> T:
        """Run one step, again and again while the database is away. The step must bear repetition."""
        backoff = Backoff(self._timing.reconnect_s)
        while True:
            try:
                return await self.once(step)
            except DatabaseAway:
                await backoff.sleep()

    def _went_away(self, error: BaseException) -> None:
        self._calm_until = time.monotonic() + self._timing.heartbeat_timeout_s
        if not self._away:
            self._away = True
            log.warning("database_away", error=type(error).__name__)
