"""Prompt search: refused at once, or a job for the hosts of its model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from starlette.responses import JSONResponse

from interpedia_shared.contracts.live.effects import PromptSearchRequest
from interpedia_shared.db.models import Job, JobTask
from interpedia_shared.db.session import Database
from tests.support.factories import World, make_account, make_sae
from tests.support.hosts import ScriptedHost, problem, register_host

SEARCH: dict[str, Any] = {"model": "tiny", "saes": ["1-res-test"], "template": "induction", "n": 4}
CHECKED = {"template": "induction", "n": 4, "prompts": ["a b a"], "controls": []}


@pytest.fixture
async def host(registry: Database, hosts: list[ScriptedHost]) -> ScriptedHost:
    """The only host; no search is unfinished."""
    await register_host(registry, "a", hosts[0].url)
    hosts[0].reply = lambda _: JSONResponse(CHECKED)
    async with registry.write() as session:
        await session.execute(update(Job).values(state="succeeded"))
    return hosts[0]


def key_of(known: World, **more: str) -> dict[str, str]:
    """The owner's headers."""
    return {"x-api-key": known.key, **more}


async def test_a_search_is_a_job_of_the_models_hosts(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
) -> None:
    answer = await caller.post("/v1/prompt-search", json=SEARCH, headers=key_of(known))
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert (job["kind"], job["state"], job["total"]) == ("prompt_search", "queued", 100)
    assert PromptSearchRequest.model_validate(job["params"]) == PromptSearchRequest.model_validate(SEARCH)
    assert [seen.path for seen in host.seen] == ["/v1/prompt-search"]
    async with registry.read() as session:
        task = (await session.scalars(select(JobTask).where(JobTask.job_id == job["id"]))).one()
    assert (task.queue, task.kind, task.weight) == ("inference-tiny", "prompt_search", 100)
    listed = await caller.get("/v1/jobs?kind=prompt_search")
    assert job["id"] in [one["id"] for one in listed.json()["items"]]


async def test_it_needs_a_key(caller: httpx.AsyncClient, host: ScriptedHost) -> None:
    assert (await caller.post("/v1/prompt-search", json=SEARCH)).status_code == 401
    assert host.seen == []


async def test_a_template_that_does_not_fit_is_told_at_once(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World
) -> None:
    host.reply = lambda _: problem(422, "invalid-request")
    before = (await caller.get("/v1/jobs")).json()
    answer = await caller.post("/v1/prompt-search", json=SEARCH, headers=key_of(known))
    assert answer.status_code == 422
    assert (await caller.get("/v1/jobs")).json() == before


async def test_without_a_host_no_job_waits_for_ever(
    caller: httpx.AsyncClient, registry: Database, known: World
) -> None:
    answer = await caller.post("/v1/prompt-search", json=SEARCH, headers=key_of(known))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_the_same_key_starts_one_search(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World
) -> None:
    headers = key_of(known, **{"idempotency-key": "once-1"})
    first = await caller.post("/v1/prompt-search", json=SEARCH, headers=headers)
    second = await caller.post("/v1/prompt-search", json=SEARCH, headers=headers)
    assert first.content == second.content
    assert len(host.seen) == 1
    other = await caller.post("/v1/prompt-search", json={**SEARCH, "seed": 1}, headers=headers)
    assert other.status_code == 409


async def test_an_account_has_so_many_at_once(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World
) -> None:
    answers = [await caller.post("/v1/prompt-search", json=SEARCH, headers=key_of(known)) for _ in range(17)]
    assert [answer.status_code for answer in answers] == [202] * 16 + [429]
    assert answers[-1].json()["limit"] == 16
    assert "retry-after" in answers[-1].headers


async def test_a_search_in_a_private_sae_is_seen_by_its_owner_only(
    caller: httpx.AsyncClient, host: ScriptedHost, registry: Database
) -> None:
    async with registry.write() as session:
        account, key = await make_account(session, "searcher", scopes=())
        await make_sae(session, account, d_sae=4, slug="1-mine", visibility="private")
    body = {**SEARCH, "saes": ["1-res-test", "1-mine"]}
    assert (await caller.post("/v1/prompt-search", json=SEARCH)).status_code == 401
    answer = await caller.post("/v1/prompt-search", json=body, headers={"x-api-key": key})
    job = answer.json()["job"]["id"]
    assert (await caller.get(f"/v1/jobs/{job}")).status_code == 404
    assert (await caller.get(f"/v1/jobs/{job}", headers={"x-api-key": key})).status_code == 200
    assert job not in [one["id"] for one in (await caller.get("/v1/jobs")).json()["items"]]


async def test_templates_come_from_a_host(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World
) -> None:
    page = {"items": [{"id": "ioi", "title": "IOI", "description": "d", "source": None}], "next_cursor": None}
    host.reply = lambda _: JSONResponse(page)
    assert (await caller.get("/v1/prompt-templates")).json() == page
    assert (await caller.get("/v1/prompt-templates?model=tiny")).json() == page
    assert (await caller.get("/v1/prompt-templates?model=none")).status_code == 404
    assert [(seen.method, seen.path) for seen in host.seen] == [("GET", "/v1/prompt-templates")] * 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 1}, "#/n"),
        ({"n": 1000}, "#/n"),
        ({"saes": []}, "#/saes"),
        ({"template": 7}, "#/template/str"),
        ({"k": 0}, "#/k"),
        ({"x": 1}, "#/x"),
    ],
)
async def test_wrong_fields(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World, change: dict[str, Any], field: str
) -> None:
    answer = await caller.post("/v1/prompt-search", json={**SEARCH, **change}, headers=key_of(known))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert host.seen == []
