"""What a worker thinks of a database that is away."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.jobs.connection import DatabaseAway, DatabaseLink
from interpedia_shared.jobs.timing import WorkerTiming
from interpedia_shared.settings import DatabaseSettings

PATIENT, QUICK = WorkerTiming(heartbeat_timeout_s=3600), WorkerTiming(heartbeat_timeout_s=0.05)


@pytest.fixture
def database_url(emptied_database_url: str) -> str:
    """The database that the tests of this file share."""
    return emptied_database_url


@pytest.fixture
def nowhere() -> DatabaseSettings:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return DatabaseSettings(url=SecretStr(f"postgresql://a:b@127.0.0.1:{port}/c"))


async def end_own_connection(session: WriteSession) -> None:
    await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def divide(session: WriteSession) -> None:
    await session.execute(text("SELECT 1/0"))


async def one(session: WriteSession) -> int:
    return int(await session.scalar(text("SELECT 1")) or 0)


class TestAway:
    async def test_a_server_that_is_not_there_is_away(self, nowhere: DatabaseSettings) -> None:
        with pytest.raises(DatabaseAway):
            await DatabaseLink(Database(nowhere), QUICK).once(one)

    async def test_a_connection_that_dies_within_a_step_is_away_and_the_next_works(
        self, database: Database
    ) -> None:
        link = DatabaseLink(database, QUICK)
        with pytest.raises(DatabaseAway):
            await link.once(end_own_connection)
        assert await link.once(one) == 1

    async def test_a_wrong_statement_is_not_waited_for(self, database: Database) -> None:
        with pytest.raises(Exception, match="division by zero"):
            await DatabaseLink(database, QUICK).insist(divide)

    async def test_insisting_repeats_until_it_works(self, database: Database) -> None:
        calls: list[int] = []

        async def third_time(session: WriteSession) -> int:
            calls.append(1)
            if len(calls) < 3:
                await end_own_connection(session)
            return await one(session)

        assert await DatabaseLink(database, QUICK).insist(third_time) == 1
        assert len(calls) == 3


class TestTakingOver:
    async def test_nobody_is_thought_dead_right_after_the_start_or_an_outage(
        self, nowhere: DatabaseSettings
    ) -> None:
        assert DatabaseLink(Database(nowhere), PATIENT).stale_after > timedelta(days=1)
        link = DatabaseLink(Database(nowhere), QUICK)
        await asyncio.sleep(0.1)
        assert link.stale_after == QUICK.silent_for
        with pytest.raises(DatabaseAway):
            await link.once(one)
        assert link.stale_after > timedelta(days=1)
        await asyncio.sleep(0.1)
        assert link.stale_after == QUICK.silent_for

    def test_pauses_double_up_to_a_limit(self) -> None:
        timing = WorkerTiming(retry_base_s=2, retry_limit_s=10)
        assert [timing.retry_in(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5)] == [2, 4, 8, 10, 10]
