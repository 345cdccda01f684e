"""What comes too late: an attempt that was given up, and a sweep beside an upload that was just opened."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, select, text, update

from interpedia_ingest.build.plan import ABANDONED, READY, REDUCE, SHARD
from interpedia_ingest.build.repository import lock_version
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads.files import UploadFolder
from interpedia_ingest.uploads.service import UploadService
from interpedia_ingest.worker import make_handlers
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Feature, Job, JobTask, SAEVersion
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import Handler, TaskContext, TaskFailed
from interpedia_shared.jobs.errors import TaskLost
from tests.ingest.ingest_support import Researcher, declared, row_counts, sae_files
from tests.support.jobs import until

KEEPS_LIBRARY = True
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
FILES = {"cfg.json": b"{}", "sae_weights.safetensors": b"w" * 100}


@dataclass(frozen=True)
class Reduction:
    """A reduce task whose spills are there, and what runs it."""

    handler: Handler
    context: TaskContext

    @property
    def version_id(self) -> int:
        return self.context.params["version"]


def context_of(database: Database, job: Job, task: JobTask) -> TaskContext:
    return TaskContext(job.id, task.id, task.ordinal, task.params, job.params, database, max(1, task.weight))


@pytest.fixture
async def reduction(
    ready: Researcher, database: Database, settings: IngestSettings, tmp_path: Path
) -> Reduction:
    """An SAE was ordered and its shards are done; no worker runs."""
    answer = await ready.order_sae(sae_files(tmp_path), n_tokens=1_200)
    assert answer.status_code == 202, answer.text
    handlers = make_handlers(settings)
    async with database.read() as session:
        job = await session.get_one(Job, uuid.UUID(answer.json()["job"]["id"]))
        tasks = list(await session.scalars(select(JobTask).where(JobTask.job_id == job.id)))
    for task in tasks:
        if task.kind == SHARD:
            await handlers[SHARD](context_of(database, job, task))
    (reduce,) = [task for task in tasks if task.kind == REDUCE]
    return Reduction(handlers[REDUCE], context_of(database, job, reduce))


async def overtake(
    database: Database,
    late: Reduction,
    *changes: Executable,
    meanwhile: Callable[[], None] = lambda: None,
) -> asyncio.Future[JSON | None]:
    """An attempt that finds, with its rows in hand, that all this was done since it began."""
    async with database.write() as session:
        await lock_version(session, late.version_id)
        for change in changes:
            await session.execute(change)
        attempt = asyncio.ensure_future(late.handler(late.context))
        await until(lambda: _is_waiting(database, attempt))
        meanwhile()
    await asyncio.wait([attempt])
    return attempt


async def _is_waiting(database: Database, attempt: asyncio.Future[Any]) -> bool:
    async with database.read() as session:
        return attempt.done() or bool(await session.scalar(WAITING))


def to_state(late: Reduction, state: str) -> Executable:
    return update(SAEVersion).where(SAEVersion.id == late.version_id).values(state=state)


class TestLateReduction:
    async def test_in_time_it_writes_its_rows(self, reduction: Reduction, database: Database) -> None:
        attempt = await overtake(database, reduction)
        assert attempt.result() is None
        assert await row_counts(database, Feature) == {"feature": 96}

    async def test_a_version_that_was_given_up_gets_no_rows(
        self, reduction: Reduction, database: Database
    ) -> None:
        attempt = await overtake(database, reduction, to_state(reduction, ABANDONED))
        assert isinstance(attempt.exception(), TaskFailed)
        assert await row_counts(database, Feature) == {"feature": 0}

    async def test_a_version_that_readers_see_is_left_alone(
        self, reduction: Reduction, database: Database
    ) -> None:
        await reduction.handler(reduction.context)
        marked = update(Feature).values(density=0.5)
        attempt = await overtake(database, reduction, to_state(reduction, READY), marked)
        assert attempt.result() is None
        async with database.read() as session:
            assert set(await session.scalars(select(Feature.density))) == {0.5}
        assert await row_counts(database, Feature) == {"feature": 96}

    async def test_a_worker_that_lost_its_task_writes_nothing(
        self, reduction: Reduction, database: Database
    ) -> None:
        lost = TaskLost("another worker has it")
        attempt = await overtake(database, reduction, meanwhile=lambda: reduction.context.interrupt(lost))
        assert isinstance(attempt.exception(), TaskLost)
        assert await row_counts(database, Feature) == {"feature": 0}


class Gate(ThreadPoolExecutor):
    """Threads, of which the first has to wait until the gate is opened."""

    def __init__(self) -> None:
        super().__init__(4)
        self.asked = asyncio.Event()
        self.opened = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.asked.is_set():
            return super().submit(fn, *args, **kwargs)
        self.asked.set()

        def later() -> Any:
            assert self.opened.wait(60)
            return fn(*args, **kwargs)

        return super().submit(later)


async def test_a_sweep_spares_an_upload_that_is_opened_beside_it(
    owner: Researcher, database: Database, settings: IngestSettings
) -> None:
    folder = DataFolder(settings)
    folder.prepare()
    orphan = UploadFolder(folder.uploads, uuid.uuid4())
    orphan.new_partial(1).write_bytes(b"left behind")
    gate = Gate()
    asyncio.get_running_loop().set_default_executor(gate)
    sweep = asyncio.create_task(UploadService(database, folder, settings).sweep())
    # Whatever comes first, the sweep now stands between its look at the folders and its look at the table.
    await asyncio.wait_for(gate.asked.wait(), 60)
    upload = await owner.open_upload("sae", FILES)
    await owner.send(upload, upload["parts"][0], FILES)
    gate.opened.set()
    await sweep
    assert not orphan.path.exists()
    for part in upload["parts"][1:]:
        await owner.send(upload, part, FILES)
    answer = await owner.post(f"/v1/uploads/{upload['id']}/complete", None)
    assert answer.status_code == 200, answer.text
    assert [file["sha256"] for file in answer.json()["files"]] == [one["sha256"] for one in declared(FILES)]
