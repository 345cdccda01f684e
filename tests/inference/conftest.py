"""An inference host behind a real socket, on a database with the tiny model that all tests here share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import torch
from pydantic import SecretStr

from interpedia_inference.settings import InferenceSettings
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.inference.live_host import LiveHost, live_host
from tests.support.live_world import LiveWorld, publish_live_world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def live_settings(postgres: LocalPostgres, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A database that is filled once and then only read, but for the registry and jobs."""
    name = f"live_{uuid.uuid4().hex[:12]}"

    async def copy() -> None:
        connection = await asyncpg.connect(postgres.database_url("postgres"))
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
        finally:
            await connection.close()

    asyncio.run(copy())
    yield DatabaseSettings(url=SecretStr(postgres.database_url(name)))
    postgres.drop_database(name)


@pytest.fixture(scope="session")
async def live_database(live_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The database of the host."""
    database = Database(live_settings)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
def live_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights are."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="session")
async def world(live_database: Database, live_data_dir: Path) -> LiveWorld:
    """What is published, and the same objects to compute expected numbers with; tests read it only."""
    async with live_database.write() as session:
        return await publish_live_world(session, live_data_dir)


@pytest.fixture(scope="session")
def host_settings(live_data_dir: Path) -> dict[str, Any]:
    """What a host of these tests is started with: one thread, so that sums come out the same."""
    return {"model": "tiny", "data_dir": live_data_dir, "torch_threads": 1, "heartbeat_s": 0.2}


@pytest.fixture(scope="session")
def host(
    world: LiveWorld, live_settings: DatabaseSettings, host_settings: dict[str, Any]
) -> Iterator[LiveHost]:
    """A host with the usual limits, ready."""
    with live_host(InferenceSettings(**host_settings), live_settings) as running:
        running.wait_until("ready")
        yield running


@pytest.fixture(scope="session")
async def client(host: LiveHost) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of it."""
    async with httpx.AsyncClient(base_url=host.url, timeout=60, verify=False) as client:
        yield client
