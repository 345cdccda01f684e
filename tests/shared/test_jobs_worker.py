"""Workers in this process: what handlers do, and what becomes of their tasks."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import (
    TaskCancelled,
    TaskContext,
    TaskFailed,
    TaskLost,
    TaskReleased,
    Worker,
    cancel_job,
    retry_job,
)
from interpedia_shared.problems import BadSAE, Unavailable
from interpedia_shared.settings import DatabaseSettings
from tests.support.jobs import (
    QUICK,
    entries,
    event_types,
    events,
    new_job,
    rows,
    show,
    tasks,
    until,
    until_state,
    working,
)


@pytest.fixture
def database_url(emptied_database_url: str) -> str:
    """The database that the tests of this file share."""
    return emptied_database_url


async def count(context: TaskContext) -> dict[str, int]:
    return {f"task{context.ordinal}": context.params.get("value", 0)}


class Gate:
    """A handler that works in a thread until it is let through, and notes what happened to it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running: set[int] = set()
        self.ended: list[str] = []

    async def __call__(self, context: TaskContext) -> None:
        await asyncio.to_thread(self._work, context)

    def _work(self, context: TaskContext) -> None:
        self.running.add(context.ordinal)
        try:
            while not self.open.wait(0.02):
                context.check()
            self.ended.append("done")
        except TaskCancelled as reason:
            self.ended.append(type(reason).__name__)
            raise

    async def busy(self, number: int) -> None:
        async def there() -> bool:
            return len(self.running) >= number

        await until(there)


class TestRunning:
    async def test_stages_run_in_order_and_results_are_merged(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        order: list[str] = []

        async def note(context: TaskContext) -> dict[str, int]:
            order.append(context.params["name"])
            assert context.job_params == {"of": "job"}
            return {context.params["name"]: context.ordinal}

        names = [[f"{stage}{number}" for number in range(3)] for stage in "abc"]
        specs = [
            spec
            for stage, group in enumerate(names)
            for spec in tasks(*({"name": name} for name in group), stage=stage, weight=2)
        ]
        job_id = await new_job(database, specs)
        async with working(database_settings, {"count": note}, concurrency=3):
            job = await until_state(database, job_id, "succeeded")
        assert [name[0] for name in order] == list("aaabbbccc")
        assert job.result == {name: number for group in names for number, name in enumerate(group)}
        assert (job.done, job.total, job.tasks.done) == (18, 18, 9)
        assert await event_types(database, job_id) == ["queued", "started", "stage", "stage", "succeeded"]
        ids = [event.id for event in await events(database, job_id)]
        assert ids == sorted(ids)
        assert await entries(database) == 0

    async def test_two_workers_share_the_tasks_and_run_none_twice(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        seen: Counter[int] = Counter()
        at_once: set[int] = set()

        async def note(context: TaskContext) -> None:
            assert context.ordinal not in at_once
            at_once.add(context.ordinal)
            await asyncio.sleep(0.01)
            seen[context.ordinal] += 1
            at_once.remove(context.ordinal)

        job_id = await new_job(database, tasks(*[{}] * 30))
        async with (
            working(database_settings, {"count": note}, concurrency=2),
            working(database_settings, {"count": note}, concurrency=2),
        ):
            await until_state(database, job_id, "succeeded")
        assert seen == Counter(range(30))
        assert len({task.worker for task in await rows(database, job_id)}) == 2
        assert {task.attempt for task in await rows(database, job_id)} == {1}

    async def test_no_more_than_its_concurrency_at_once(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate = Gate()
        job_id = await new_job(database, tasks({}, {}, {}))
        async with working(database_settings, {"count": gate}, concurrency=2):
            await gate.busy(2)
            await asyncio.sleep(3 * QUICK.poll_s)
            assert (await show(database, job_id)).tasks.model_dump(include={"running", "queued"}) == {
                "running": 2,
                "queued": 1,
            }
            gate.open.set()
            await until_state(database, job_id, "succeeded")

    async def test_a_task_longer_than_the_heartbeat_timeout_stays_with_its_worker(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate, other = Gate(), Gate()
        job_id = await new_job(database, tasks({}))
        async with working(database_settings, {"count": gate}):
            await gate.busy(1)
            async with working(database_settings, {"count": other}):
                await asyncio.sleep(1.5 * QUICK.heartbeat_timeout_s)
                gate.open.set()
                await until_state(database, job_id, "succeeded")
        assert other.running == set()
        assert [task.attempt for task in await rows(database, job_id)] == [1]

    async def test_work_that_comes_later_is_noticed_at_once(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        deaf_to_time = replace(QUICK, poll_s=3600, sweep_s=3600)
        async with working(database_settings, {"count": count}, timing=deaf_to_time):
            for _ in range(2):
                await until_state(database, await new_job(database, tasks({})), "succeeded")

    async def test_a_lost_queue_entry_is_found_missing(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        job_id = await new_job(database, [*tasks({}), *tasks({}, stage=1)])
        async with database.write() as session:
            await session.execute(text("TRUNCATE pgqueuer"))
        async with working(database_settings, {"count": count}):
            await until_state(database, job_id, "succeeded")

    async def test_progress_reaches_the_row_while_the_task_runs(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        go_on = threading.Event()

        def work(context: TaskContext) -> None:
            context.report(7)
            go_on.wait()

        async def report(context: TaskContext) -> None:
            await asyncio.to_thread(work, context)

        job_id = await new_job(database, tasks({}, weight=10))
        async with working(database_settings, {"count": report}):

            async def seven() -> bool:
                return (await show(database, job_id)).done == 7

            await until(seven)
            go_on.set()
            await until_state(database, job_id, "succeeded")
        progress = [event for event in await events(database, job_id) if event.type == "progress"]
        assert progress[0].data == {"stage": "first", "done": 7, "total": 10}


class TestFailing:
    async def test_an_exception_is_tried_again_and_its_text_stays_inside(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        async def shaky(context: TaskContext) -> None:
            if context.attempt < 3:
                raise RuntimeError("a secret of ours")

        job_id = await new_job(database, tasks({}))
        async with working(database_settings, {"count": shaky}):
            job = await until_state(database, job_id, "succeeded")
        assert job.error is None
        failures = [event.data for event in await events(database, job_id) if event.type == "task_failed"]
        assert [data["attempt"] for data in failures] == [1, 2]
        assert failures[0] | {"error": None} == {
            "task": "count",
            "stage": "first",
            "ordinal": 0,
            "attempt": 1,
            "error": None,
        }
        assert failures[0]["error"]["exception"] == "RuntimeError"
        assert "secret" not in str(failures)

    async def test_a_task_that_always_fails_is_dead_and_the_rest_goes_on(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        async def picky(context: TaskContext) -> None:
            if context.ordinal == 1:
                raise OSError(errno.ENOSPC, "No space left on device", "/a/path/of/ours")

        job_id = await new_job(database, [*tasks({}, {}, {}), *tasks({}, stage=1)])
        async with working(database_settings, {"count": picky}):
            job = await until_state(database, job_id, "failed")
        assert (job.tasks.done, job.tasks.dead, job.tasks.waiting) == (2, 1, 1)
        assert job.error is not None
        assert "OSError (No space left on device) in task 'count' 1, attempt 3 of 3" in job.error["detail"]
        assert "/a/path" not in str(job.error)
        assert (await event_types(database, job_id)).count("task_dead") == 1

    @pytest.mark.parametrize(
        ("error", "attempts", "shown"),
        [
            (TaskFailed("the file has no W_dec", type="bad-sae", title="SAE refused"), 1, "bad-sae"),
            (BadSAE.field("#/hook", "no such hook"), 1, "bad-sae"),
            (Unavailable("the hub does not answer"), 3, "unavailable"),
        ],
    )
    async def test_hopeless_failures_are_not_tried_again(
        self,
        database: Database,
        database_settings: DatabaseSettings,
        error: Exception,
        attempts: int,
        shown: str,
    ) -> None:
        async def fail(context: TaskContext) -> None:
            raise error

        job_id = await new_job(database, tasks({}))
        async with working(database_settings, {"count": fail}):
            job = await until_state(database, job_id, "failed")
        assert job.error is not None
        assert (job.error["type"], job.error["detail"]) == (shown, error.detail)  # type: ignore[attr-defined]
        assert (await rows(database, job_id))[0].attempt == attempts

    @pytest.mark.parametrize("result", [{"x": float("nan")}, {"x": "\x00"}, {"x": object()}])
    async def test_a_result_that_is_no_json_is_a_failure(
        self, database: Database, database_settings: DatabaseSettings, result: dict[str, Any]
    ) -> None:
        async def odd(context: TaskContext) -> dict[str, Any]:
            return result

        job_id = await new_job(database, tasks({}, max_attempts=1))
        async with working(database_settings, {"count": odd}):
            job = await until_state(database, job_id, "failed")
        assert job.error is not None
        assert job.error["exception"] in {"ValueError", "TypeError"}

    @pytest.mark.parametrize("error", [TaskCancelled, TaskLost, TaskReleased, asyncio.CancelledError])
    async def test_to_stop_without_being_asked_is_a_failure(
        self, database: Database, database_settings: DatabaseSettings, error: type[BaseException]
    ) -> None:
        async def sulk(context: TaskContext) -> None:
            raise error

        job_id = await new_job(database, tasks({}, max_attempts=1))
        async with working(database_settings, {"count": sulk}):
            assert (await until_state(database, job_id, "failed")).tasks.dead == 1

    async def test_a_kind_without_a_handler_is_a_failure_that_another_worker_may_mend(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        job_id = await new_job(database, tasks({}, kind="unheard-of", max_attempts=1))
        async with working(database_settings, {"count": count}):
            job = await until_state(database, job_id, "failed")
        assert job.error is not None
        assert job.error["exception"] == "NoHandler"
        async with database.write() as session:
            await retry_job(session, job_id)
        async with working(database_settings, {"unheard-of": count}):
            assert (await until_state(database, job_id, "succeeded")).error is None
        assert "retried" in await event_types(database, job_id)

    async def test_progress_beyond_the_weight_is_a_failure(self) -> None:
        context = TaskContext(*[None] * 6, weight=3)  # type: ignore[arg-type]
        for wrong in (-1, 4):
            with pytest.raises(ValueError, match=rf"done: {wrong} is outside 0\.\.3"):
                context.report(wrong)
        context.report(3)
        assert context.done == 3


class TestStopping:
    async def test_running_handlers_notice_a_cancel(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate = Gate()
        job_id = await new_job(database, [*tasks({}, {}, {}), *tasks({}, stage=1)])
        async with working(database_settings, {"count": gate}, concurrency=2):
            await gate.busy(2)
            async with database.write() as session:
                assert (await cancel_job(session, job_id)).state == "running"
            job = await until_state(database, job_id, "cancelled")
        assert gate.ended == ["TaskCancelled", "TaskCancelled"]
        assert job.tasks.cancelled == 4
        assert await event_types(database, job_id) == ["queued", "started", "cancelled"]
        assert await entries(database) == 0

    async def test_a_cancelled_job_runs_to_the_end_when_retried(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate = Gate()
        job_id = await new_job(database, [*tasks({}, {}), *tasks({}, stage=1)])
        async with working(database_settings, {"count": gate}):
            await gate.busy(1)
            async with database.write() as session:
                await cancel_job(session, job_id)
            await until_state(database, job_id, "cancelled")
            gate.open.set()
            async with database.write() as session:
                await retry_job(session, job_id)
            assert (await until_state(database, job_id, "succeeded")).done == 3

    async def test_a_handler_that_finishes_first_has_finished(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def deaf(context: TaskContext) -> dict[str, int]:
            started.set()
            await go_on.wait()
            return {"kept": 1}

        job_id = await new_job(database, tasks({}))
        async with working(database_settings, {"count": deaf}):
            await started.wait()
            async with database.write() as session:
                await cancel_job(session, job_id)
            go_on.set()
            job = await until_state(database, job_id, "succeeded")
        assert job.result == {"kept": 1}

    async def test_a_stopped_worker_gives_its_task_back_and_the_attempt_does_not_count(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate = Gate()
        job_id = await new_job(database, tasks({}, max_attempts=1))
        for _ in range(3):
            async with working(database_settings, {"count": gate}) as worker:
                gate.running.clear()
                await gate.busy(1)
            assert worker.abandoned == 0
            task = (await rows(database, job_id))[0]
            assert (task.state, task.attempt, task.worker) == ("queued", 0, None)
        gate.open.set()
        async with working(database_settings, {"count": gate}):
            await until_state(database, job_id, "succeeded")
        assert gate.ended == ["TaskReleased"] * 3 + ["done"]

    async def test_a_handler_that_does_not_notice_is_left_behind(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        started = asyncio.Event()

        async def deaf(context: TaskContext) -> None:
            started.set()
            await asyncio.sleep(3600)

        job_id = await new_job(database, tasks({}, max_attempts=1))
        async with working(
            database_settings, {"count": deaf}, timing=replace(QUICK, shutdown_s=0.1)
        ) as worker:
            await started.wait()
        assert worker.abandoned == 1
        task = (await rows(database, job_id))[0]
        assert (task.state, task.attempt) == ("queued", 0)
        async with working(database_settings, {"count": count}):
            await until_state(database, job_id, "succeeded")

    async def test_a_worker_that_lost_its_task_is_told(
        self, database: Database, database_settings: DatabaseSettings
    ) -> None:
        gate = Gate()
        job_id = await new_job(database, tasks({}))
        async with working(database_settings, {"count": gate}):
            await gate.busy(1)
            async with database.write() as session:
                await session.execute(text("UPDATE job_task SET worker = 'another', attempt = 2"))

            async def told() -> bool:
                return bool(gate.ended)

            await until(told)
            task = (await rows(database, job_id))[0]
            assert (task.worker, task.state) == ("another", "running")
            assert gate.ended == ["TaskLost"]

    def test_whoever_handles_a_cancel_handles_every_reason_to_stop(self) -> None:
        assert issubclass(TaskLost, TaskCancelled)
        assert issubclass(TaskReleased, TaskCancelled)
        assert not issubclass(TaskFailed, TaskCancelled)

    async def test_a_missing_schema_ends_the_worker_instead_of_being_waited_for(
        self, postgres: LocalPostgres
    ) -> None:
        bare = DatabaseSettings(url=SecretStr(postgres.create_database("bare")))
        with pytest.raises(ExceptionGroup):
            await Worker(bare, {}, queue="ingest", timing=QUICK).run(asyncio.Event())

    async def test_so_does_a_wrong_password(self, database_url: str) -> None:
        user, rest = database_url.rsplit("@", 1)
        wrong = DatabaseSettings(url=SecretStr(f"{user}x@{rest}"))
        with pytest.raises(ExceptionGroup):
            await Worker(wrong, {}, queue="ingest", timing=QUICK).run(asyncio.Event())
