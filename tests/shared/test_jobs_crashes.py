"""Real worker processes and a real server, killed in the middle of their work."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.__main__ import upgrade
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.support.jobs import (
    PATIENCE_S,
    QUICK,
    WorkerProcess,
    events,
    new_job,
    rows,
    show,
    tasks,
    until,
    until_lines,
    until_state,
)

WAIT = [{"until": "go"}]


@pytest.fixture
def processes() -> Iterator[list[WorkerProcess]]:
    """Worker processes that a test started; none of them outlives it."""
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.kill()


class TestWorkers:
    async def test_a_killed_worker_s_task_goes_to_another(
        self, database: Database, database_url: str, tmp_path: Path, processes: list[WorkerProcess]
    ) -> None:
        job_id = await new_job(database, [*tasks(*WAIT, kind="wait"), *tasks({}, stage=1)])
        processes.append(WorkerProcess(database_url, tmp_path))
        await until_lines(tmp_path / "started", 1)
        processes.append(WorkerProcess(database_url, tmp_path))
        processes[0].kill()
        await until_lines(tmp_path / "started", 2)
        (tmp_path / "go").touch()
        job = await until_state(database, job_id, "succeeded", "failed")
        assert job.state == "succeeded"
        assert job.result is not None
        assert job.result["pid0"] == processes[1].process.pid
        assert [task.attempt for task in await rows(database, job_id)] == [2, 1]
        errors = [
            event.data["error"] for event in await events(database, job_id) if event.type == "task_failed"
        ]
        assert [error["type"] for error in errors] == ["worker-died"]

    async def test_a_task_that_kills_its_worker_is_dead_in_the_end_and_the_others_finish(
        self, database: Database, database_url: str, tmp_path: Path, processes: list[WorkerProcess]
    ) -> None:
        specs = [*tasks({}, {}, {}), *tasks({}, kind="poison", max_attempts=2)]
        specs[3] = replace(specs[3], ordinal=3)
        job_id = await new_job(database, [specs[3], *specs[:3]])
        for number in (1, 2):
            processes.append(WorkerProcess(database_url, tmp_path))
            await until_lines(tmp_path / "poisoned", number)
            await asyncio.to_thread(processes[-1].process.wait, PATIENCE_S)
        processes.append(WorkerProcess(database_url, tmp_path))
        job = await until_state(database, job_id, "failed")
        assert (job.tasks.done, job.tasks.dead) == (3, 1)
        assert job.error is not None
        assert "during attempts 1 and 2." in job.error["detail"]
        assert len((tmp_path / "poisoned").read_text().splitlines()) == 2
        assert len((tmp_path / "counted").read_text().splitlines()) == 3
        assert processes[-1].process.poll() is None

    async def test_sigterm_gives_the_task_back(
        self, database: Database, database_url: str, tmp_path: Path, processes: list[WorkerProcess]
    ) -> None:
        job_id = await new_job(database, tasks(*WAIT, kind="wait", max_attempts=1))
        processes.append(WorkerProcess(database_url, tmp_path))
        await until_lines(tmp_path / "started", 1)
        assert await asyncio.to_thread(processes[0].terminate) == 0
        task = (await rows(database, job_id))[0]
        assert (task.state, task.attempt) == ("queued", 0)
        (tmp_path / "go").touch()
        processes.append(WorkerProcess(database_url, tmp_path))
        await until_state(database, job_id, "succeeded")

    async def test_sigterm_ends_a_process_whose_handler_hears_nothing(
        self, database: Database, database_url: str, tmp_path: Path, processes: list[WorkerProcess]
    ) -> None:
        job_id = await new_job(database, tasks({}, kind="deaf"))
        processes.append(WorkerProcess(database_url, tmp_path, replace(QUICK, shutdown_s=0.2)))
        await until_lines(tmp_path / "started", 1)
        assert await asyncio.to_thread(processes[0].terminate) == 1
        task = (await rows(database, job_id))[0]
        assert (task.state, task.attempt) == ("queued", 0)

    async def test_a_worker_that_was_only_frozen_drops_its_result(
        self, database: Database, database_url: str, tmp_path: Path, processes: list[WorkerProcess]
    ) -> None:
        job_id = await new_job(database, tasks(*WAIT, kind="wait"))
        processes.append(WorkerProcess(database_url, tmp_path))
        await until_lines(tmp_path / "started", 1)
        os.kill(processes[0].process.pid, signal.SIGSTOP)
        processes.append(WorkerProcess(database_url, tmp_path))
        await until_lines(tmp_path / "started", 2)
        (tmp_path / "go").touch()
        job = await until_state(database, job_id, "succeeded")
        os.kill(processes[0].process.pid, signal.SIGCONT)
        assert await asyncio.to_thread(processes[0].terminate) == 0
        assert job.result == (await show(database, job_id)).result == {"pid0": processes[1].process.pid}
        assert (await rows(database, job_id))[0].attempt == 2


@pytest.fixture
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
async def own_database(own_server: LocalPostgres) -> AsyncIterator[Database]:
    """The database of that server."""
    database = Database(DatabaseSettings(url=SecretStr(own_server.url)))
    yield database
    await database.dispose()


async def kill_server(server: LocalPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)

    async def gone() -> bool:
        return not server.is_running()

    await until(gone)


def said(worker: WorkerProcess) -> set[str]:
    """The words of its log."""
    return set(worker.log.read_text().split())


class TestServer:
    async def test_work_goes_on_through_a_kill_of_the_server_and_ends_after_it(
        self,
        own_server: LocalPostgres,
        own_database: Database,
        tmp_path: Path,
        processes: list[WorkerProcess],
    ) -> None:
        """The server is away for longer than the heartbeat timeout, and one task ends meanwhile."""
        specs = [*tasks({"until": "early"}, {"until": "late"}, kind="wait", weight=1000), *tasks({}, stage=1)]
        job_id = await new_job(own_database, specs)
        processes += [WorkerProcess(own_server.url, tmp_path) for _ in range(2)]
        await until_lines(tmp_path / "started", 2)
        await kill_server(own_server)
        (tmp_path / "early").touch()
        await until_lines(tmp_path / "finished", 1)
        await asyncio.sleep(1.5 * QUICK.heartbeat_timeout_s)
        await asyncio.to_thread(own_server.restart)
        (tmp_path / "late").touch()
        job = await until_state(own_database, job_id, "succeeded", "failed")
        assert job.state == "succeeded"
        assert job.done == job.total == 2001
        assert [task.attempt for task in await rows(own_database, job_id)] == [1, 1, 1]
        assert len((tmp_path / "started").read_text().splitlines()) == 2
        assert [worker.process.poll() for worker in processes] == [None, None]

        assert all({"database_away", "database_back"} <= said(worker) for worker in processes)
        again = await new_job(own_database, tasks({}, {}, {}, {}))
        await until_state(own_database, again, "succeeded")
        assert [await asyncio.to_thread(worker.terminate) for worker in processes] == [0, 0]

    async def test_a_worker_may_start_before_the_server_and_be_stopped_while_it_is_away(
        self,
        own_server: LocalPostgres,
        own_database: Database,
        tmp_path: Path,
        processes: list[WorkerProcess],
    ) -> None:
        job_id = await new_job(own_database, tasks({}))
        await kill_server(own_server)
        processes += [WorkerProcess(own_server.url, tmp_path) for _ in range(2)]

        async def both_wait() -> bool:
            return all("database_away" in said(worker) for worker in processes)

        await until(both_wait)
        assert await asyncio.to_thread(processes[0].terminate) == 0
        await asyncio.to_thread(own_server.restart)
        await until_state(own_database, job_id, "succeeded")
