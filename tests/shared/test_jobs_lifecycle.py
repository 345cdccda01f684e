"""The steps of a task's life, called one by one by hand-made workers: claims, fences, leases, races."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection
from datetime import timedelta

import pytest
from sqlalchemy import delete, text, update

from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import cancel_job, lifecycle, queue, retry_job, upkeep
from interpedia_shared.jobs.lifecycle import Claim, WorkerIdentity
from tests.support.jobs import entries, event_types, events, new_job, rows, show, tasks

LONG, NONE = timedelta(hours=1), timedelta(0)


@pytest.fixture
def database_url(emptied_database_url: str) -> str:
    """The database that the tests of this file share."""
    return emptied_database_url


def worker(name: str, *, silent_for: timedelta = LONG) -> WorkerIdentity:
    return WorkerIdentity(name=name, id=uuid.uuid4(), queue="ingest", silent_for=silent_for)


async def take(database: Database, who: WorkerIdentity) -> queue.Entry | None:
    async with database.write() as session:
        return await queue.take(session, "ingest", who.id, stale_after=who.silent_for)


async def begin(
    database: Database, entry: queue.Entry, who: WorkerIdentity, *, busy: Collection[int] = ()
) -> Claim | None:
    async with database.write() as session:
        return await lifecycle.begin_attempt(session, entry, who, busy=busy)


async def claim_next(database: Database, who: WorkerIdentity) -> Claim:
    entry = await take(database, who)
    assert entry is not None
    claim = await begin(database, entry, who)
    assert claim is not None
    return claim


async def finish(database: Database, claim: Claim) -> bool:
    async with database.write() as session:
        return await lifecycle.finish(session, claim, {str(claim.task.ordinal): claim.worker})


class TestClaims:
    async def test_one_entry_goes_to_one_of_many(self, database: Database) -> None:
        await new_job(database, tasks({}))
        taken = await asyncio.gather(*(take(database, worker(f"w{n}")) for n in range(8)))
        assert len([entry for entry in taken if entry is not None]) == 1

    async def test_the_attempt_is_counted_before_the_work(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        await claim_next(database, worker("a"))
        task = (await rows(database, job_id))[0]
        assert (task.state, task.attempt, task.worker) == ("running", 1, "a")
        assert (await show(database, job_id)).state == "running"

    async def test_a_live_worker_keeps_its_task_though_the_entry_got_lost(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        claim = await claim_next(database, worker("a"))
        async with database.write() as session:
            await session.execute(text("DELETE FROM pgqueuer"))
            await queue.enqueue(session, [claim.task])
        entry = await take(database, other := worker("b"))
        assert entry is not None
        assert await begin(database, entry, other) is None
        task = (await rows(database, job_id))[0]
        assert (task.worker, task.attempt) == ("a", 1)
        assert await entries(database) == 1
        assert await take(database, other) is None  # put back for later

    async def test_a_silent_worker_loses_its_task_and_what_it_does_is_dropped(
        self, database: Database
    ) -> None:
        job_id = await new_job(database, tasks({}))
        late = await claim_next(database, worker("a"))
        new = await claim_next(database, worker("b", silent_for=NONE))
        assert new.attempt == 2
        async with database.write() as session:
            assert await upkeep.beat(session, worker("a"), [late.entry]) == {}
            assert not await lifecycle.write_progress(session, late, 1)
            assert not await lifecycle.release(session, late)
            assert not await lifecycle.cancel(session, late)
            assert not await lifecycle.fail(session, late, {"type": "x"}, retry_in=None)
        assert not await finish(database, late)
        assert (await rows(database, job_id))[0].state == "running"
        assert await finish(database, new)
        job = await show(database, job_id)
        assert (job.state, job.result) == ("succeeded", {"0": "b"})

    async def test_the_same_worker_at_a_later_attempt_is_another(self, database: Database) -> None:
        await new_job(database, tasks({}))
        who = worker("a")
        first = await claim_next(database, who)
        async with database.write() as session:
            await lifecycle.fail(session, first, {"type": "x"}, retry_in=NONE)
        second = await claim_next(database, who)
        assert not await finish(database, first)
        assert await finish(database, second)

    async def test_finishing_twice_is_finishing_once(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, {}))
        claim = await claim_next(database, worker("a"))
        assert await finish(database, claim)
        assert not await finish(database, claim)
        assert (await show(database, job_id)).done == 1

    async def test_beginning_again_after_a_lost_answer_counts_once(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        entry = await take(database, who := worker("a"))
        assert entry is not None
        for _ in range(2):
            claim = await begin(database, entry, who)
            assert claim is not None
            assert claim.attempt == 1
        assert await begin(database, entry, who, busy={entry.task_id}) is None  # it runs here already
        assert (await rows(database, job_id))[0].attempt == 1

    async def test_entries_of_tasks_that_need_nobody_are_dropped(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, {}, {}))
        done, dead, cancelled = await rows(database, job_id)
        for task, state in ((done, "done"), (dead, "dead"), (cancelled, "cancelled")):
            async with database.write() as session:
                await session.execute(update(JobTask).where(JobTask.id == task.id).values(state=state))
            entry = await take(database, who := worker("a"))
            assert entry is not None
            assert await begin(database, entry, who) is None
        assert await entries(database) == 0

    async def test_entries_of_no_task_are_dropped(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        async with database.write() as session:
            await session.execute(delete(Job).where(Job.id == job_id))
            await session.execute(
                text(
                    "INSERT INTO pgqueuer (priority, entrypoint, payload, status)"
                    " VALUES (0, 'ingest', 'nonsense', 'queued')"
                )
            )
        for _ in range(2):
            entry = await take(database, who := worker("a"))
            assert entry is not None
            assert await begin(database, entry, who) is None
        assert await entries(database) == 0

    async def test_other_queues_are_left_alone(self, database: Database) -> None:
        await new_job(database, tasks({}, queue="elsewhere"))
        assert await take(database, worker("a")) is None


class TestCrashes:
    async def test_each_crash_uses_up_an_attempt_until_the_task_is_dead(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, max_attempts=3))
        for attempt in (1, 2, 3):
            claim = await claim_next(database, worker(f"w{attempt}", silent_for=NONE))
            assert claim.attempt == attempt
        entry = await take(database, who := worker("w4", silent_for=NONE))
        assert entry is not None
        assert await begin(database, entry, who) is None
        job = await show(database, job_id)
        assert (job.state, job.tasks.dead) == ("failed", 1)
        assert job.error is not None
        assert job.error["type"] == "worker-died"
        assert "attempts 1, 2 and 3" in job.error["detail"]
        assert await entries(database) == 0
        assert await event_types(database, job_id) == [
            "queued",
            "started",
            "task_failed",
            "task_failed",
            "task_failed",
            "task_dead",
            "failed",
        ]

    async def test_after_a_failure_a_crash_names_only_itself(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, max_attempts=2))
        first = await claim_next(database, worker("a"))
        async with database.write() as session:
            await lifecycle.fail(session, first, {"type": "internal-error"}, retry_in=NONE)
        await claim_next(database, worker("b"))
        entry = await take(database, who := worker("c", silent_for=NONE))
        assert entry is not None
        assert await begin(database, entry, who) is None
        assert (await rows(database, job_id))[0].error is not None
        assert "during attempt 2." in (await show(database, job_id)).error["detail"]  # type: ignore[index]

    async def test_a_cancelled_job_of_a_dead_worker_ends_cancelled(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}))
        await claim_next(database, worker("a"))
        async with database.write() as session:
            assert (await cancel_job(session, job_id)).state == "running"
        entry = await take(database, who := worker("b", silent_for=NONE))
        assert entry is not None
        assert await begin(database, entry, who) is None
        assert (await show(database, job_id)).state == "cancelled"

    async def test_the_sweep_enqueues_what_lost_its_entry_and_nothing_else(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, {}, {}))
        await claim_next(database, worker("alive"))
        await finish(database, await claim_next(database, worker("done")))
        async with database.write() as session:
            await session.execute(text("DELETE FROM pgqueuer"))
        async with database.write() as session:
            assert await upkeep.sweep(session, worker("s")) == 1  # the queued one
        async with database.write() as session:
            assert await upkeep.sweep(session, worker("s", silent_for=NONE)) == 1  # the silent one
        async with database.write() as session:
            assert await upkeep.sweep(session, worker("s", silent_for=NONE)) == 0
        assert [task.state for task in await rows(database, job_id)] == ["running", "done", "queued"]
        assert await entries(database) == 2

    async def test_the_library_s_log_does_not_grow_for_ever(self, database: Database) -> None:
        await new_job(database, tasks({}))
        async with database.write() as session:
            await session.execute(text("UPDATE pgqueuer_log SET created = now() - interval '2 days'"))
        await new_job(database, tasks({}))
        async with database.write() as session:
            await upkeep.sweep(session, worker("s"))
            assert await session.scalar(text("SELECT count(*) FROM pgqueuer_log")) == 1


class TestStages:
    async def test_tasks_that_end_at_once_start_the_next_stage_once(self, database: Database) -> None:
        job_id = await new_job(database, [*tasks(*[{}] * 8), *tasks({}, {}, stage=1)])
        claims = [await claim_next(database, worker(f"w{n}")) for n in range(8)]
        assert all(await asyncio.gather(*(finish(database, claim) for claim in claims)))
        assert await entries(database) == 2
        job = await show(database, job_id)
        assert (job.stage, job.done, job.tasks.queued) == ("second", 8, 2)
        assert (await event_types(database, job_id)).count("stage") == 1
        assert job.result == {str(claim.task.ordinal): claim.worker for claim in claims}

    async def test_a_dead_task_holds_the_later_stages_but_not_its_own(self, database: Database) -> None:
        job_id = await new_job(database, [*tasks({}, {}), *tasks({}, stage=1)])
        bad, good = [await claim_next(database, worker(name)) for name in "ab"]
        async with database.write() as session:
            await lifecycle.fail(session, bad, {"type": "bad"}, retry_in=None)
        assert (await show(database, job_id)).state == "running"
        assert await finish(database, good)
        job = await show(database, job_id)
        assert (job.state, job.error, job.stage) == ("failed", {"type": "bad"}, "first")
        assert (job.tasks.done, job.tasks.dead, job.tasks.waiting) == (1, 1, 1)
        async with database.write() as session:
            await retry_job(session, job_id)
        job = await show(database, job_id)
        assert (job.state, job.error, job.done, job.tasks.queued) == ("queued", None, 1, 1)
        again = await claim_next(database, worker("c"))
        assert (again.task.id, again.attempt) == (bad.task.id, 1)
        assert await finish(database, again)
        assert await finish(database, await claim_next(database, worker("c")))
        assert (await show(database, job_id)).state == "succeeded"

    async def test_finishing_cancelling_and_retrying_at_once_never_deadlocks(
        self, database: Database
    ) -> None:
        job_id = await new_job(database, tasks(*[{}] * 6))
        claims = [await claim_next(database, worker(f"w{n}")) for n in range(3)]

        async def cancel() -> None:
            async with database.write() as session:
                await cancel_job(session, job_id)

        async def look(name: str) -> None:
            while (entry := await take(database, who := worker(name))) is not None:
                await begin(database, entry, who)

        await asyncio.gather(
            *(finish(database, claim) for claim in claims), cancel(), *(look(name) for name in "xyz")
        )
        job = await show(database, job_id)
        assert job.tasks.done == 3
        assert job.tasks.queued == 0

    async def test_progress_adds_up_over_tasks_and_workers(self, database: Database) -> None:
        job_id = await new_job(database, tasks({}, {}, weight=10))
        a, b = [await claim_next(database, worker(name)) for name in "ab"]

        async def write(claim: Claim, done: int) -> None:
            async with database.write() as session:
                await lifecycle.write_progress(session, claim, done)

        await asyncio.gather(*(write(claim, done) for done in range(1, 8) for claim in (a, b)))
        await asyncio.gather(write(a, 4), write(b, 3))
        assert (await show(database, job_id)).done == 7
        assert await finish(database, a)
        assert (await show(database, job_id)).done == 13
        async with database.write() as session:
            await lifecycle.fail(session, b, {"type": "x"}, retry_in=NONE)
        assert (await show(database, job_id)).done == 10
        progress = [event for event in await events(database, job_id) if event.type == "progress"]
        seconds = (progress[-1].at - progress[0].at).total_seconds()
        assert 1 <= len(progress) <= 1 + seconds  # never two within a second
