"""One database for a whole file of tests, emptied before each: copying the schema costs more than they do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import asyncpg
import pytest

from interpedia_local.postgres import LocalPostgres

EMPTY = "DELETE FROM job; DELETE FROM account; DELETE FROM pgqueuer; DELETE FROM pgqueuer_log"


def execute(url: str, statement: str) -> None:
    """Run one statement, or several without parameters."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def jobs_database_url(postgres: LocalPostgres, migrated_template: str) -> Iterator[str]:
    """URL of a database that the tests of one file share."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(postgres.database_url("postgres"), f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
    yield postgres.database_url(name)
    postgres.drop_database(name)


@pytest.fixture
def emptied_database_url(jobs_database_url: str) -> str:
    """The same, without jobs, accounts or queue entries."""
    execute(jobs_database_url, EMPTY)
    return jobs_database_url
