"""A real Postgres for the whole run, a fresh copy of the migrated schema for each test that asks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from pydantic import SecretStr

from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.__main__ import upgrade
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """The server, from the wheel's binaries; gone when the run ends."""
    with LocalPostgres.temporary() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: LocalPostgres) -> str:
    """Name of a database built by the migrations and then only copied."""
    url = postgres.create_database("migrated")
    upgrade(DatabaseSettings(url=SecretStr(url)))
    return "migrated"


async def _copy(admin_url: str, name: str, template: str) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()


@pytest.fixture
def database_url(postgres: LocalPostgres, migrated_template: str) -> Iterator[str]:
    """URL of a database of this test's own, with the whole schema and no rows."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_copy(postgres.database_url("postgres"), name, migrated_template))
    yield postgres.database_url(name)
    postgres.drop_database(name)


@pytest.fixture
def database_settings(database_url: str) -> DatabaseSettings:
    """Settings that point at this test's database."""
    return DatabaseSettings(url=SecretStr(database_url))


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """This test's database, as the services hold it."""
    database = Database(database_settings)
    yield database
    await database.dispose()
