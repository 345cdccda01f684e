"""Gateways over databases: one that all reading tests share, and fresh ones for tests that write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from interpedia_gateway.app import create_app
from interpedia_gateway.live.hosts import Hosts
from interpedia_gateway.settings import GatewaySettings
from interpedia_gateway.state import Gateway
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.support.factories import World, make_account, make_sae, publish_world
from tests.support.hosts import ScriptedHost, forget_hosts


@pytest.fixture(scope="session", autouse=True)
def short_tracebacks() -> None:
    """An exception that is logged shows its traceback, not every local variable of an ASGI stack."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, renderer])


def gateway_settings(data_dir: Path, ingest_url: str = "http://127.0.0.1:9") -> GatewaySettings:
    """Settings for tests; nobody answers at the other services' addresses, at ingest's unless it is given."""
    return GatewaySettings(
        data_dir=data_dir,
        ingest_url=ingest_url,
        autointerp_url="http://127.0.0.1:9",
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


def parse_events(text: str) -> list[dict[str, str]]:
    """Server-sent events as dicts; comments are left out."""
    found: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")]
        if lines:
            found.append({line[0]: line[1] for line in lines})
    return found


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


@pytest.fixture(scope="session")
def hosts_settings(postgres: LocalPostgres, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A database that the tests of live routes share; each begins with an empty registry."""

    async def copy() -> None:
        connection = await asyncpg.connect(postgres.database_url("postgres"))
        await connection.execute(f'CREATE DATABASE gateway_hosts TEMPLATE "{migrated_template}"')
        await connection.close()

    asyncio.run(copy())
    yield DatabaseSettings(url=SecretStr(postgres.database_url("gateway_hosts")))
    postgres.drop_database("gateway_hosts")


@pytest.fixture(scope="session")
async def hosts_database(hosts_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The same as the services hold it."""
    database = Database(hosts_settings)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
async def known(hosts_database: Database, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The catalogue."""
    async with hosts_database.write() as session:
        world = await publish_world(session, tmp_path_factory.mktemp("hosts"))
        owner, _ = await make_account(session, "hidden")
        await make_sae(session, owner, d_sae=4, slug="1-private", visibility="private")
        return world


@pytest.fixture
async def registry(hosts_database: Database, known: World) -> Database:
    """The database with an empty registry."""
    del known
    await forget_hosts(hosts_database)
    return hosts_database


def eager_gateway(data_dir: Path, settings: DatabaseSettings) -> FastAPI:
    """A gateway that asks the registry each time."""
    eager = gateway_settings(data_dir).model_copy(update={"hosts_kept_s": 0.0, "live_timeout_s": 5.0})
    return create_app(eager, settings)


@pytest.fixture(scope="session")
def one_app(hosts_settings: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """A gateway for all tests of live routes."""
    return eager_gateway(tmp_path_factory.mktemp("data"), hosts_settings)


@pytest.fixture(scope="session")
async def one_caller(one_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key, for all tests of live routes."""
    async with calling(one_app) as client:
        yield client


@pytest.fixture
def app(one_app: FastAPI) -> FastAPI:
    """The gateway, which remembers nothing of any host."""
    gateway: Gateway = one_app.state.gateway
    one_app.state.gateway = replace(gateway, hosts=Hosts(gateway.database, kept_s=0.0, silent_s=10.0))
    return one_app


@pytest.fixture
def caller(app: FastAPI, one_caller: httpx.AsyncClient) -> httpx.AsyncClient:
    """A caller without a key."""
    del app
    return one_caller


@pytest.fixture(scope="session")
def three_hosts() -> Iterator[list[ScriptedHost]]:
    """Three hosts for all tests."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedHost().running()) for _ in range(3)]


@pytest.fixture
def hosts(three_hosts: list[ScriptedHost]) -> list[ScriptedHost]:
    """The hosts as new."""
    for host in three_hosts:
        host.reset()
    return three_hosts
