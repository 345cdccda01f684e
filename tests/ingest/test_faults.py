"""Builds through kill -9 of the worker and of Postgres: they end by themselves, with the same bytes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from interpedia_ingest.app import create_app
from interpedia_ingest.settings import IngestSettings
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.__main__ import upgrade
from interpedia_shared.db.models import SAE, JobTask, SAEVersion
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import JobOut
from interpedia_shared.settings import DatabaseSettings
from tests.ingest.ingest_support import (
    HOOK,
    Researcher,
    WorkerProcess,
    declared,
    documents,
    finished,
    ingesting,
    jsonl,
    new_researcher,
    sae_files,
)
from tests.support.jobs import show, until

pytestmark = pytest.mark.slow
N_TOKENS = 3_000
STAGES = ("shard", "reduce")
# The job may be quicker than whoever wants to disturb it; then it is disturbed again, from the start.
ROUNDS = 5


@pytest.fixture(scope="module")
def own_server() -> Iterator[LocalPostgres]:
    """A server that may be killed; it keeps its promises, unlike the quick one that tests share."""
    folder = Path(tempfile.mkdtemp(prefix="interpedia-postgres-"))
    folder.chmod(0o755)
    server = LocalPostgres(folder / "postgres", shared_buffers="64MB")
    try:
        server.start()
        upgrade(DatabaseSettings(url=SecretStr(server.url)))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(own_server: LocalPostgres) -> str:
    """The database of that server, kept between tests."""
    return own_server.url


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    """Worker processes that a test started; none of them outlives it."""
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.kill()


@pytest.fixture
async def undisturbed(
    database: Database, database_settings: DatabaseSettings, settings: IngestSettings, tmp_path: Path
) -> AsyncIterator[tuple[Researcher, dict[str, bytes], str]]:
    """A researcher, an SAE's files, and the digest of its dashboards when nothing goes wrong."""
    files = sae_files(tmp_path, d_sae=640, architecture="standard")
    app = create_app(settings, database_settings)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as http:
        owner = await new_researcher(database, http)
        if await digest(database, "calm") is None:
            async with ingesting(database_settings, settings):
                assert (await finished(database, await owner.order_model())).state == "succeeded"
                corpus = (await owner.order_corpus(jsonl(documents(16)))).json()
                assert (await finished(database, corpus)).state == "succeeded"
                calm = (await owner.order_sae(files, name="calm", n_tokens=N_TOKENS)).json()
                assert (await finished(database, calm)).state == "succeeded"
        wanted = await digest(database, "calm")
        assert wanted is not None
        yield owner, files, wanted
    await app.state.database.dispose()


async def digest(database: Database, name: str) -> str | None:
    async with database.read() as session:
        return await session.scalar(
            select(SAEVersion.digest)
            .join(SAE, SAE.current_version_id == SAEVersion.id)
            .where(SAE.slug == name)
        )


async def until_running(database: Database, job_id: uuid.UUID, kind: str, done: int) -> JobOut:
    """The job, once a task of this kind runs and so many of the kind are done; or once it has ended."""

    async def there() -> JobOut | None:
        job = await show(database, job_id)
        if job.state in {"succeeded", "failed", "cancelled"}:
            return job
        async with database.read() as session:
            rows = await session.scalars(
                select(JobTask.state).where(JobTask.job_id == job_id, JobTask.kind == kind)
            )
            states = list(rows)
        return job if "running" in states and states.count("done") >= done else None

    return await until(there, every_s=0.01)


async def kill_server(server: LocalPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)

    async def gone() -> bool:
        return not server.is_running()

    await until(gone)


async def order(owner: Researcher, files: dict[str, bytes], name: str) -> dict[str, Any]:
    answer = await owner.order_sae(files, name=name, hook=HOOK, n_tokens=N_TOKENS)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_kill_9_of_the_worker(
    undisturbed: tuple[Researcher, dict[str, bytes], str],
    database: Database,
    database_url: str,
    settings: IngestSettings,
    workers: list[WorkerProcess],
) -> None:
    owner, files, wanted = undisturbed
    for number in range(ROUNDS):
        accepted = await order(owner, files, f"killed-{number}")
        job_id = uuid.UUID(accepted["job"]["id"])
        kills = 0
        for kind in STAGES:
            workers.append(WorkerProcess(database_url, settings))
            kills += (await until_running(database, job_id, kind, 1)).state == "running"
            workers[-1].kill()
        workers.append(WorkerProcess(database_url, settings))
        job = await finished(database, accepted)
        workers[-1].kill()
        assert job.state == "succeeded", job.error
        assert await digest(database, f"killed-{number}") == wanted
        async with database.read() as session:
            attempts = list(await session.scalars(select(JobTask.attempt).where(JobTask.job_id == job_id)))
        # A kill between two tasks costs nothing, a kill within one costs that one's attempt.
        assert sum(attempts) - len(attempts) <= len(STAGES)
        assert max(attempts) <= 2
        if kills == len(STAGES):
            return
    pytest.fail("each time the job was over before it could be disturbed")


async def test_kill_9_of_postgres(
    undisturbed: tuple[Researcher, dict[str, bytes], str],
    own_server: LocalPostgres,
    database: Database,
    database_url: str,
    settings: IngestSettings,
    workers: list[WorkerProcess],
) -> None:
    owner, files, wanted = undisturbed
    workers.append(WorkerProcess(database_url, settings))
    for number in range(ROUNDS):
        accepted = await order(owner, files, f"stormy-{number}")
        kills = 0
        for kind in STAGES:
            job = await until_running(database, uuid.UUID(accepted["job"]["id"]), kind, 1)
            kills += job.state == "running"
            await kill_server(own_server)
            away = await owner.post("/v1/uploads", {"kind": "corpus", "files": declared({"x.jsonl": b"{}"})})
            assert away.status_code == 503, away.text
            await asyncio.to_thread(own_server.restart)
        job = await finished(database, accepted)
        assert job.state == "succeeded", job.error
        assert workers[0].process.poll() is None
        assert await digest(database, f"stormy-{number}") == wanted
        if kills == len(STAGES):
            return
    pytest.fail("each time the job was over before it could be disturbed")


async def test_the_control_other_weights_have_another_digest(
    undisturbed: tuple[Researcher, dict[str, bytes], str],
    database: Database,
    database_settings: DatabaseSettings,
    settings: IngestSettings,
    tmp_path: Path,
) -> None:
    owner, _, wanted = undisturbed
    accepted = await order(owner, sae_files(tmp_path, d_sae=640, architecture="standard", seed=1), "other")
    async with ingesting(database_settings, settings):
        assert (await finished(database, accepted)).state == "succeeded"
    assert await digest(database, "other") != wanted
