"""A caller with a database and a run of its own; and the endpoint that answers in 200 ms."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from benchmarks.processes import start
from benchmarks.services import free_port
from interpedia_autointerp.llm import Caller, LLMSettings, create_budget
from interpedia_shared.db.models import Account, Job, Run
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


@dataclass(frozen=True)
class Asking:
    """A caller, and the run and job that its calls are for."""

    caller: Caller
    run_id: uuid.UUID
    job_id: uuid.UUID


@asynccontextmanager
async def asking(url: str, settings: LLMSettings) -> AsyncGenerator[Asking]:
    """A caller on a migrated database."""
    database = Database(DatabaseSettings(url=SecretStr(url)))
    run_id, job_id = await _new_run(database)
    caller = Caller(database, settings)
    try:
        yield Asking(caller, run_id, job_id)
    finally:
        await caller.aclose()
        await database.dispose()


async def _new_run(database: Database) -> tuple[uuid.UUID, uuid.UUID]:
    job_id, run_id = uuid.uuid4(), uuid.uuid4()
    async with database.write() as session:
        account = Account(name=f"bench-{job_id}")
        session.add(account)
        await session.flush()
        session.add(
            Job(
                id=job_id,
                kind="bench",
                state="running",
                account_id=account.id,
                params={},
                stages=[],
                total=1,
            )
        )
        await session.flush()
        run = {"kind": "benchmark", "method": "bench", "method_version": "1", "params": {}, "provenance": {}}
        session.add(Run(id=run_id, account_id=account.id, job_id=job_id, **run))
        await session.flush()
        await create_budget(session, job_id)
    return run_id, job_id


@contextmanager
def endpoint(work: Path, *, latency_s: float, error: float) -> Generator[str]:
    """The scripted endpoint of the tests as a process of its own, its judge wrong in `error` of the cases."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.scripted_llm"]
    command += ["--port", str(port), "--latency", str(latency_s), "--error", str(error)]
    child = start(command, log=work / "logs" / "endpoint.log", environment={"PYTHONPATH": str(ROOT)})
    try:
        _await_listening(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.process.kill()
        child.process.wait()


def _await_listening(port: int) -> None:
    for _ in range(10 * START_SECONDS):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                json.load(answer)
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError("the scripted endpoint did not start: see endpoint.log")


async def latencies_ms(url: str) -> list[int]:
    """Of all calls, from the request to the answer, as the caller saw them."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT latency_ms FROM llm_call WHERE latency_ms IS NOT NULL")
        return [row["latency_ms"] for row in rows]
    finally:
        await connection.close()
