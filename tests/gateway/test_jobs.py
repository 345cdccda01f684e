"""Jobs: who may steer them, and event streams that can be taken up again."""

from __future__ import annotations

import asyncio
import uuid

import orjson
import pytest
from httpx import AsyncClient
from sqlalchemy import func, insert, update

from interpedia_shared.db.models import Job, JobEvent
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import TaskSpec, create_job
from interpedia_shared.pagination import make_cursor
from tests.gateway.conftest import parse_events
from tests.support.factories import World, make_account, make_sae, make_version


async def new_job(database: Database, account_id: int) -> uuid.UUID:
    """A queued job with one task; no worker looks at its queue."""
    async with database.write() as session:
        job = await create_job(
            session,
            kind="build_dashboards",
            account_id=account_id,
            params={"model": "tiny"},
            stages=("shard",),
            tasks=[TaskSpec("nothing", 0, 0, {}, queue="nobody")],
        )
        return job.id


async def add_event(database: Database, job: uuid.UUID, kind: str, state: str | None = None) -> None:
    """An event, and the state it brings, in one transaction as workers write them."""
    async with database.write() as session:
        await session.execute(
            insert(JobEvent).values(job_id=job, at=func.clock_timestamp(), type=kind, data={})
        )
        if state is not None:
            await session.execute(update(Job).where(Job.id == job).values(state=state))


@pytest.mark.parametrize("path", ["", "/events"])
async def test_unknown_jobs_are_404_and_nonsense_422(client: AsyncClient, path: str) -> None:
    assert (await client.get(f"/v1/jobs/{uuid.uuid4()}{path}")).json()["type"].endswith("job-not-found")
    assert (await client.get(f"/v1/jobs/not-a-job{path}")).status_code == 422


@pytest.mark.parametrize("value", ["x", "-1", "99999999999999999999", "1.5"])
async def test_a_wrong_last_event_id_is_422(
    client: AsyncClient, world: World, shared_database: Database, value: str
) -> None:
    job = await new_job(shared_database, world.account_id)
    answer = await client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "last-event-id"


async def test_forged_cursors_are_422(client: AsyncClient) -> None:
    scope = {"route": "jobs", "state": None, "kind": None}
    for key in (
        ["x", "y"],
        ["2026-01-01", "y"],
        ["9999-12-31T23:59:59", str(uuid.uuid4())],
        [1, 2],
        ["\x00", "\x00"],
    ):
        answer = await client.get(f"/v1/jobs?cursor={make_cursor(key, scope)}")
        assert answer.status_code in (200, 422)
    assert (await client.get("/v1/jobs?state=sleeping")).status_code == 422
    assert (await client.get("/v1/jobs?kind=cook")).status_code == 422


async def test_steering_needs_the_owners_key(
    client: AsyncClient, world: World, shared_database: Database
) -> None:
    job = await new_job(shared_database, world.account_id)
    async with shared_database.write() as session:
        _, foreign = await make_account(session, f"other-{job}", scopes=("publish",))
    for verb in ("cancel", "retry"):
        assert (await client.post(f"/v1/jobs/{job}/{verb}")).status_code == 401
        wrong = await client.post(f"/v1/jobs/{job}/{verb}", headers={"x-api-key": "ip_0_x"})
        assert wrong.status_code == 401
        forbidden = await client.post(f"/v1/jobs/{job}/{verb}", headers={"x-api-key": foreign})
        assert forbidden.status_code == 403
        unknown = await client.post(f"/v1/jobs/{uuid.uuid4()}/{verb}", headers={"x-api-key": world.key})
        assert unknown.status_code == 404
    assert (await client.get(f"/v1/jobs/{job}")).json()["state"] == "queued"


async def test_cancel_and_retry(client: AsyncClient, world: World, shared_database: Database) -> None:
    job = await new_job(shared_database, world.account_id)
    owner = {"x-api-key": world.key}
    too_early = await client.post(f"/v1/jobs/{job}/retry", headers=owner)
    assert too_early.status_code == 409
    for _ in range(2):
        cancelled = await client.post(f"/v1/jobs/{job}/cancel", headers=owner)
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = await client.post(f"/v1/jobs/{job}/retry", headers=owner)
    assert (again.status_code, again.json()["tasks"]["queued"]) == (200, 1)
    types = [event.get("event") for event in parse_events(await _events_until_cancelled(client, job, owner))]
    assert types == ["queued", "cancelled", "retried", *types[3:]]


async def _events_until_cancelled(client: AsyncClient, job: uuid.UUID, owner: dict[str, str]) -> str:
    await client.post(f"/v1/jobs/{job}/cancel", headers=owner)
    return (await client.get(f"/v1/jobs/{job}/events")).text


async def test_jobs_are_listed_newest_first(
    client: AsyncClient, world: World, shared_database: Database
) -> None:
    jobs = [str(await new_job(shared_database, world.account_id)) for _ in range(3)]
    seen: list[str] = []
    cursor = ""
    while len(seen) < 3:
        page = (await client.get(f"/v1/jobs?limit=2&state=queued&kind=build_dashboards{cursor}")).json()
        seen += [item["id"] for item in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen[:3] == jobs[::-1]


async def test_events_come_as_they_happen_and_end_with_the_job(
    client: AsyncClient, world: World, shared_database: Database
) -> None:
    job = await new_job(shared_database, world.account_id)

    async def work() -> None:
        await asyncio.sleep(0.2)
        await add_event(shared_database, job, "progress")
        await asyncio.sleep(0.1)
        await add_event(shared_database, job, "succeeded", "succeeded")

    answer, _ = await asyncio.gather(client.get(f"/v1/jobs/{job}/events"), work())
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "\n: ping" in answer.text or answer.text.startswith(": ping")
    found = parse_events(answer.text)
    assert [event["event"] for event in found][-2:] == ["progress", "succeeded"]
    ids = [int(event["id"]) for event in found]
    assert ids == sorted(set(ids))
    assert orjson.loads(found[-1]["data"])["type"] == "succeeded"
    for seen in range(len(ids) + 1):
        headers = {"Last-Event-ID": str(ids[seen - 1])} if seen else {}
        rest = parse_events((await client.get(f"/v1/jobs/{job}/events", headers=headers)).text)
        assert [int(event["id"]) for event in rest] == ids[seen:]


async def test_jobs_of_private_saes_are_hidden(
    client: AsyncClient, world: World, shared_database: Database
) -> None:
    job = await new_job(shared_database, world.account_id)
    async with shared_database.write() as session:
        sae = await make_sae(
            session, world.account_id, d_sae=1, slug="hidden", visibility="private", state="building"
        )
        await make_version(session, sae, world.corpus_id, publish=False, job_id=job)
    assert (await client.get(f"/v1/jobs/{job}")).status_code == 404
    assert str(job) not in (await client.get("/v1/jobs?limit=500")).text
    mine = {"x-api-key": world.key}
    assert (await client.get(f"/v1/jobs/{job}", headers=mine)).status_code == 200
    not_built = (await client.get("/v1/models/tiny/saes/hidden/features/0", headers=mine)).json()
    assert not_built["job"] == str(job)


async def test_explaining_a_private_sae_is_hidden_too(
    client: AsyncClient, world: World, shared_database: Database
) -> None:
    job = await new_job(shared_database, world.account_id)
    async with shared_database.write() as session:
        row = await session.get(Job, job)
        assert row is not None
        row.kind, row.params = "explain", {"is_private": True}
    assert (await client.get(f"/v1/jobs/{job}")).status_code == 404
    assert str(job) not in (await client.get("/v1/jobs?kind=explain&limit=500")).text
    mine = {"x-api-key": world.key}
    assert str(job) in (await client.get("/v1/jobs?kind=explain&limit=500", headers=mine)).text
