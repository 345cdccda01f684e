"""Jobs for the tests of the jobs library: making them, watching them, and workers as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from interpedia_shared.db.models import Account, Job, JobEvent, JobTask
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import Handler, JobOut, TaskSpec, Worker, WorkerTiming, create_job, job_out
from interpedia_shared.settings import DatabaseSettings
from tests.support.forking import ForkedProcess

# A living worker must not look dead when the machine is busy with other tests.
QUICK = WorkerTiming(
    heartbeat_timeout_s=4.0, poll_s=0.2, sweep_s=0.5, retry_base_s=0.1, retry_limit_s=0.4, shutdown_s=60.0
)
PATIENCE_S = 300.0


def tasks(*params: dict[str, Any], kind: str = "count", stage: int = 0, **options: Any) -> list[TaskSpec]:
    """A task for each params."""
    return [TaskSpec(kind, stage, number, each, **options) for number, each in enumerate(params)]


async def new_job(
    database: Database, specs: Sequence[TaskSpec], *, stages: Sequence[str] = ("first", "second", "third")
) -> uuid.UUID:
    """A committed job of an account of its own."""
    async with database.write() as session:
        account = Account(name=f"account-{uuid.uuid4().hex}")
        session.add(account)
        await session.flush()
        job = await create_job(
            session, kind="test", account_id=account.id, params={"of": "job"}, stages=stages, tasks=specs
        )
        return job.id


async def show(database: Database, job_id: uuid.UUID) -> JobOut:
    """The job as the API shows it."""
    async with database.read() as session:
        job = await session.get(Job, job_id)
        assert job is not None
        return await job_out(session, job)


async def events(database: Database, job_id: uuid.UUID) -> list[JobEvent]:
    """All events of the job, in order."""
    async with database.read() as session:
        found = await session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id))
        return list(found)


async def event_types(
    database: Database, job_id: uuid.UUID, *, without: Sequence[str] = ("progress",)
) -> list[str]:
    """What happened, without the events that depend on the clock."""
    return [event.type for event in await events(database, job_id) if event.type not in without]


async def rows(database: Database, job_id: uuid.UUID) -> list[JobTask]:
    """The job's tasks, in order."""
    async with database.read() as session:
        found = await session.scalars(
            select(JobTask).where(JobTask.job_id == job_id).order_by(JobTask.stage, JobTask.ordinal)
        )
        return list(found)


async def entries(database: Database) -> int:
    """How many entries the queue has."""
    async with database.read() as session:
        return int(await session.scalar(text("SELECT count(*) FROM pgqueuer")) or 0)


async def until(what: Callable[[], Awaitable[Any]], *, every_s: float = 0.05) -> Any:
    """The first true answer; a test that waits for ever fails here instead."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := await what():
            return answer
        await asyncio.sleep(every_s)
    raise AssertionError("nothing happened")


async def until_state(database: Database, job_id: uuid.UUID, *states: str) -> JobOut:
    """The job, once it is in one of the states."""

    async def there() -> JobOut | None:
        job = await show(database, job_id)
        return job if job.state in states else None

    return await until(there)


@asynccontextmanager
async def working(
    settings: DatabaseSettings,
    handlers: Mapping[str, Handler],
    *,
    concurrency: int = 1,
    timing: WorkerTiming = QUICK,
) -> AsyncIterator[Worker]:
    """A worker in this process; stopped in the orderly way at the end."""
    worker = Worker(settings, handlers, queue="ingest", concurrency=concurrency, timing=timing)
    stop = asyncio.Event()
    run = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(run, PATIENCE_S)


class WorkerProcess:
    """A worker as a process of its own, with the handlers of `tests.support.job_worker`."""

    def __init__(self, url: str, folder: Path, timing: WorkerTiming = QUICK) -> None:
        self.log = folder / f"worker-{uuid.uuid4().hex[:6]}.log"
        environment = {
            **os.environ,
            "INTERPEDIA_DATABASE__URL": url,
            "JOB_WORKER_FOLDER": str(folder),
            "JOB_WORKER_TIMING": json.dumps(vars(timing)),
        }
        self.process = ForkedProcess("tests.support.job_worker", environment, self.log)

    def kill(self) -> None:
        """SIGKILL: no goodbye of any kind."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def lines_of(file: Path) -> list[str]:
    """The lines of a file that may not exist yet."""
    return file.read_text().splitlines() if file.exists() else []


async def until_lines(file: Path, count: int) -> list[str]:
    """The lines of a file, once there are so many."""

    async def enough() -> list[str] | None:
        lines = lines_of(file)
        return lines if len(lines) >= count else None

    return await until(enough)
