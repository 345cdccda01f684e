"""Jobs as the API handles them, without any worker."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy import func, select, text

from interpedia_shared.db.models import Account, Job
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import (
    TaskSpec,
    cancel_job,
    create_job,
    get_job,
    jobs_out,
    queue,
    read_events,
    retry_job,
)
from interpedia_shared.problems import Conflict, JobNotFound
from tests.support.jobs import entries, event_types, events, new_job, rows, show, tasks


@pytest.fixture
def database_url(emptied_database_url: str) -> str:
    """The database that the tests of this file share."""
    return emptied_database_url


class Abort(Exception):
    """The caller's transaction fails for a reason of its own."""


class TestCreate:
    async def test_a_rollback_leaves_neither_rows_nor_queue_entries(self, database: Database) -> None:
        async def create_and_abort() -> None:
            async with database.write() as session:
                account = Account(name="somebody")
                session.add(account)
                await session.flush()
                await create_job(
                    session, kind="test", account_id=account.id, params={}, stages=["a"], tasks=tasks({}, {})
                )
                assert await session.scalar(text("SELECT count(*) FROM pgqueuer")) == 2
                raise Abort

        with pytest.raises(Abort):
            await create_and_abort()
        assert await entries(database) == 0
        async with database.read() as session:
            assert await session.scalar(select(func.count()).select_from(Job)) == 0

    async def test_the_queue_is_in_the_transaction_even_as_its_first_statement(
        self, database: Database
    ) -> None:
        job_id = await new_job(database, tasks({}))
        task = (await rows(database, job_id))[0]
        async with database.write() as session:
            await queue.drop(session, [task.id])

        async def enqueue_and_abort() -> None:
            async with database.write() as session:
                await queue.enqueue(session, [task])
                raise Abort

        with pytest.raises(Abort):
            await enqueue_and_abort()
        assert await entries(database) == 0

    async def test_only_the_first_stage_is_queued(self, database: Database) -> None:
        job_id = await new_job(database, [*tasks({}, {}, weight=4), *tasks({}, stage=1, weight=3)])
        job = await show(database, job_id)
        assert (job.state, job.stage, job.done, job.total) == ("queued", "first", 0, 11)
        assert job.tasks.model_dump() == {
            "waiting": 1,
            "queued": 2,
            "running": 0,
            "done": 0,
            "dead": 0,
            "cancelled": 0,
        }
        assert await entries(database) == 2
        assert await event_types(database, job_id) == ["queued"]

    async def test_a_stage_without_tasks_is_passed_over(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, stage=1))
        job = await show(database, job_id)
        assert (job.stage, job.tasks.queued) == ("second", 1)

    @pytest.mark.parametrize(
        ("specs", "says"),
        [
            ([], "tasks: a job needs at least one"),
            (tasks({}, stage=3), r"stage: 3 of task 'count' is outside 0\.\.2"),
            (tasks({}) + tasks({}), "ordinal: 0 occurs twice in stage 0"),
        ],
    )
    async def test_a_plan_that_could_not_end_is_refused(
        self, database: Database, specs: list[TaskSpec], says: str
    ) -> None:
        with pytest.raises(ValueError, match=says):
            await new_job(database, specs)

    async def test_a_stage_named_twice_is_refused(self, database: Database) -> None:
        with pytest.raises(ValueError, match="a name occurs twice"):
            await new_job(database, tasks({}), stages=["same", "same"])

    @pytest.mark.parametrize("wrong", [{"weight": 0}, {"max_attempts": 0}, {"stage": -1}, {"ordinal": -1}])
    def test_numbers_of_a_task_are_checked(self, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TaskSpec(**{"kind": "count", "stage": 0, "ordinal": 0, "params": {}, **wrong})


class TestRead:
    async def test_an_unknown_job_is_not_found(self, database: Database) -> None:
        async with database.write() as session:
            for call in (get_job, cancel_job, retry_job):
                with pytest.raises(JobNotFound):
                    await call(session, uuid.uuid4())

    async def test_several_jobs_at_once_keep_their_own_counts(self, database: Database) -> None:
        ids = [await new_job(database, tasks(*[{}] * count)) for count in (1, 3)]
        async with database.read() as session:
            jobs = [await get_job(session, job_id) for job_id in ids]
            assert [job.tasks.queued for job in await jobs_out(session, jobs)] == [1, 3]
            assert await jobs_out(session, []) == []

    async def test_events_are_read_from_where_the_reader_was(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        async with database.write() as session:
            await cancel_job(session, job_id)
        everything = await events(database, job_id)
        async with database.read() as session:
            after_first = await read_events(session, job_id, after=everything[0].id)
            assert [event.id for event in after_first] == [event.id for event in everything[1:]]
            assert len(await read_events(session, job_id, limit=1)) == 1
            assert await read_events(session, uuid.uuid4()) == []


class TestCancel:
    async def test_what_has_not_started_is_cancelled_at_once(self, database: Database) -> None:
        job_id = await new_job(database, [*tasks({}, {}), *tasks({}, stage=1)])
        async with database.write() as session:
            assert (await cancel_job(session, job_id)).state == "cancelled"
        job = await show(database, job_id)
        assert (job.state, job.tasks.cancelled, job.cancel_requested) == ("cancelled", 3, True)
        assert job.finished_at is not None
        assert await entries(database) == 0
        assert await event_types(database, job_id) == ["queued", "cancelled"]

    async def test_again_changes_nothing(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        for _ in range(2):
            async with database.write() as session:
                await cancel_job(session, job_id)
        assert await event_types(database, job_id) == ["queued", "cancelled"]

    @pytest.mark.parametrize("state", ["succeeded", "failed"])
    async def test_a_finished_job_is_a_conflict(self, database: Database, state: str) -> None:
        job_id = await new_job(database, tasks({}))
        async with database.write() as session:
            (await get_job(session, job_id)).state = state
        with pytest.raises(Conflict, match=f"has {state}"):
            async with database.write() as session:
                await cancel_job(session, job_id)


class TestRetry:
    async def test_a_cancelled_job_starts_where_it_was(self, database: Database) -> None:
        job_id = await new_job(database, [*tasks({}, {}), *tasks({}, stage=1)])
        async with database.write() as session:
            await cancel_job(session, job_id)
        async with database.write() as session:
            await retry_job(session, job_id)
        job = await show(database, job_id)
        assert (job.state, job.cancel_requested, job.finished_at) == ("queued", False, None)
        assert (job.tasks.queued, job.tasks.waiting) == (2, 1)
        assert await entries(database) == 2
        assert await event_types(database, job_id) == ["queued", "cancelled", "retried"]

    @pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
    async def test_a_job_that_did_not_fail_is_a_conflict(self, database: Database, state: str) -> None:
        job_id = await new_job(database, tasks({}))
        async with database.write() as session:
            (await get_job(session, job_id)).state = state
        with pytest.raises(Conflict, match=f"is {state}"):
            async with database.write() as session:
                await retry_job(session, job_id)

    async def test_two_at_once_are_one(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, {}))
        async with database.write() as session:
            await cancel_job(session, job_id)

        async def retry() -> None:
            async with database.write() as session:
                await retry_job(session, job_id)

        outcomes = await asyncio.gather(retry(), retry(), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]
        assert await entries(database) == 2
