"""Gateways over databases: one that all reading tests share, and fresh ones for tests that write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from interpedia_gateway.app import create_app
from interpedia_gateway.settings import GatewaySettings
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.support.factories import World, publish_world


@pytest.fixture(scope="session", autouse=True)
def short_tracebacks() -> None:
    """An exception that is logged shows its traceback, not every local variable of an ASGI stack."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, renderer])


def gateway_settings(data_dir: Path, ingest_url: str = "http://127.0.0.1:9") -> GatewaySettings:
    """Settings for tests; by default nobody answers at the ingest address."""
    return GatewaySettings(
        data_dir=data_dir,
        ingest_url=ingest_url,
        events_poll_s=0.02,
        events_heartbeat_s=0.05,
        export_chunk=7,
    )


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key, of a service that is started and stopped."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client,
    ):
        yield client


@pytest.fixture(scope="session")
def shared_database_settings(postgres: LocalPostgres, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A database that is filled once and then only read."""

    async def copy() -> None:
        connection = await asyncpg.connect(postgres.database_url("postgres"))
        await connection.execute(f'CREATE DATABASE gateway_reads TEMPLATE "{migrated_template}"')
        await connection.close()

    asyncio.run(copy())
    yield DatabaseSettings(url=SecretStr(postgres.database_url("gateway_reads")))
    postgres.drop_database("gateway_reads")


@pytest.fixture(scope="session")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder beside the database that is only read."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="session")
async def shared_database(shared_database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The shared database, for adding what no other test looks at."""
    database = Database(shared_database_settings)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
async def world(shared_database: Database, shared_data_dir: Path) -> World:
    """One public SAE of 40 features with dashboards, for tests that only read."""
    async with shared_database.write() as session:
        return await publish_world(session, shared_data_dir)


@pytest.fixture(scope="session")
async def client(
    world: World, shared_database_settings: DatabaseSettings, shared_data_dir: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key, over the database that is only read."""
    del world
    async with calling(create_app(gateway_settings(shared_data_dir), shared_database_settings)) as client:
        yield client


@pytest.fixture
async def own_world(database: Database, tmp_path: Path) -> World:
    """As `world`, in a database of this test's own."""
    async with database.write() as session:
        return await publish_world(session, tmp_path)


@pytest.fixture
async def own_client(database_settings: DatabaseSettings, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key, over a database of this test's own."""
    async with calling(create_app(gateway_settings(tmp_path), database_settings)) as client:
        yield client
