"""The ingest API in this process, on a database and a data folder that the tests of one file share.

Before each test everything is deleted. A file that says `KEEPS_LIBRARY = True` keeps the model and the corpus
that its first test ordered (fixture `ready`), since making them again would only cost time.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import torch
from fastapi import FastAPI
from sqlalchemy import select, text

from interpedia_ingest.app import create_app
from interpedia_ingest.settings import IngestSettings
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.models import Corpus
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.ingest.ingest_support import Researcher, documents, finished, ingesting, jsonl, new_researcher

_CLEAN_SAES = """
UPDATE sae SET current_version_id = NULL;
DELETE FROM feature; DELETE FROM sae_version; DELETE FROM sae; DELETE FROM release;
DELETE FROM idempotency_key; DELETE FROM upload; DELETE FROM pgqueuer; DELETE FROM job;
"""
_CLEAN_ALL = f"""{_CLEAN_SAES}
DELETE FROM corpus; DELETE FROM language_model; DELETE FROM tokenizer; DELETE FROM account;
"""


def execute(url: str, statements: str) -> None:
    """Run statements."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The machine is shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def module_database_url(postgres: LocalPostgres, migrated_template: str) -> Iterator[str]:
    """URL of a database that the tests of one file share."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(postgres.database_url("postgres"), f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
    yield postgres.database_url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of one file of tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def database_url(module_database_url: str, request: pytest.FixtureRequest) -> str:
    """The same, emptied."""
    keeps = getattr(request.module, "KEEPS_LIBRARY", False)
    execute(module_database_url, _CLEAN_SAES if keeps else _CLEAN_ALL)
    return module_database_url


@pytest.fixture
def settings(data_dir: Path) -> IngestSettings:
    """Small parts, shards and tasks, so that there are several of each."""
    return IngestSettings(
        data_dir=data_dir,
        part_bytes=10_000,
        rows_per_shard=32,
        features_per_task=128,
        torch_threads=1,
        max_upload_bytes=1_000_000,
        max_open_uploads=8,
        max_dense_values=300_000,
        reserve_bytes=0,
        heartbeat_timeout_s=4.0,
    )


@pytest.fixture
async def app(
    database: Database, database_settings: DatabaseSettings, settings: IngestSettings
) -> AsyncIterator[FastAPI]:
    """The API; its housekeeping does not run by itself."""
    app = create_app(settings, database_settings)
    yield app
    await app.state.database.dispose()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A way to the API."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
        yield client


@pytest.fixture
async def owner(database: Database, http: httpx.AsyncClient) -> Researcher:
    """The owner of this installation."""
    return await new_researcher(database, http)


@pytest.fixture
async def ready(
    owner: Researcher, database: Database, database_settings: DatabaseSettings, settings: IngestSettings
) -> Researcher:
    """The owner, once the model `tiny` and the corpus `words` (over a hundred contexts) are there."""
    async with database.read() as session:
        if await session.scalar(select(Corpus.state).where(Corpus.slug == "words")) == "ready":
            return owner
    async with ingesting(database_settings, settings):
        assert (await finished(database, await owner.order_model())).state == "succeeded"
        answer = await owner.order_corpus(jsonl(documents(16)))
        job = await finished(database, answer.json())
    assert job.state == "succeeded", job.error
    async with database.write() as session:
        await session.execute(text("DELETE FROM job"))
    return owner
