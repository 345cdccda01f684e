"""Prompt search: what is refused before it begins, and the job on a host that holds the model."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from interpedia_inference.settings import InferenceSettings
from interpedia_shared.db.models import Account
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import JobOut, TaskSpec, cancel_job, create_job
from interpedia_shared.settings import DatabaseSettings
from tests.inference.live_host import LiveHost, live_host
from tests.support.jobs import until_state
from tests.support.live_world import LiveWorld

OWN = {
    "id": "which-place",
    "text": "the {COLOUR} {ANIMAL} {VERB} in the",
    "good": [" river"],
    "bad": [" house"],
    "slots": {
        "COLOUR": {"values": ["red", "blue", "green"]},
        "ANIMAL": {"values": ["cat", "dog", "bird"]},
        "VERB": {"values": ["is", "was", "will be"]},
    },
    "roles": {"animal": "ANIMAL", "end": "last"},
}


def request(**changes: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "saes": ["1-res-std"],
        "template": OWN,
        "n": 8,
        "k": 6,
        "controls": [],
        **changes,
    }


async def test_bundled_templates_are_listed_with_their_text(client: httpx.AsyncClient) -> None:
    page = (await client.get("/v1/prompt-templates")).json()
    assert page["next_cursor"] is None
    by_id = {one["id"]: one for one in page["items"]}
    assert {"indirect-object", "greater-than", "induction", "docstring", "gendered-pronoun"} <= set(by_id)
    assert all(one["title"] and one["description"] and "text" in one["source"] for one in by_id.values())


async def test_a_search_is_checked_before_it_begins(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/prompt-search", json=request())
    assert answer.status_code == 200, answer.text
    checked = answer.json()
    assert (checked["template"], checked["n"], checked["controls"]) == ("which-place", 8, [])
    assert len(checked["prompts"]) == 5
    assert all(prompt.endswith(" in the") for prompt in checked["prompts"])
    again = (await client.post("/v1/prompt-search", json=request())).json()
    assert again == checked  # a seed means something
    chosen = (await client.post("/v1/prompt-search", json=request(controls=None))).json()
    assert len(chosen["controls"]) == 3


@pytest.mark.parametrize(
    ("changes", "status", "field", "fact"),
    [
        ({"template": "no-such-template"}, 422, "#/template", "'no-such-template' is not bundled"),
        (
            {"template": {**OWN, "good": [" river bird"]}},
            422,
            "#/template",
            "is not one token behind the prompt",
        ),
        ({"template": {**OWN, "text": "the {NOWHERE} is"}}, 422, "#/template/text", "no slot 'NOWHERE'"),
        ({"template": {**OWN, "code": "1"}}, 422, "#/template", "code"),
        ({"template": "text: [a\n"}, 422, "#/template", ""),
        ({"template": "a: &a [x, x]\nb: [*a, *a]\n"}, 422, "#/template", ""),
        ({"template": "!!python/object/apply:os.system ['true']\n"}, 422, "#/template", ""),
        ({"method": "attribution_patching"}, 422, "#/template/corrupt", "corrupted"),
        ({"controls": ["greater-than", "nothing"]}, 422, "#/controls/1", "'nothing' is not bundled"),
        ({"n": 1}, 422, "#/n", ""),
        ({"saes": ["9-none"]}, 404, None, "9-none"),
    ],
)
async def test_what_cannot_be_searched_is_refused_at_once(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, field: str | None, fact: str
) -> None:
    answer = await client.post("/v1/prompt-search", json=request(**changes))
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert fact in problem["detail"]
    if field is not None:
        assert problem["errors"][0]["field"].startswith(field)


def test_a_search_has_a_limit_of_its_own(
    world: LiveWorld, live_settings: DatabaseSettings, host_settings: dict[str, Any]
) -> None:
    settings = InferenceSettings(**{**host_settings, "max_search_bytes": 300_000, "max_effect_tokens": 40})
    with live_host(settings, live_settings) as small, httpx.Client(base_url=small.url, timeout=60) as client:
        small.wait_until("ready")
        assert client.post("/v1/prompt-search", json=request(n=2)).status_code == 200
        answer = client.post("/v1/prompt-search", json=request(n=24))
        assert answer.status_code == 413, answer.text
        problem = answer.json()
        assert (problem["what"], problem["limit"]) == ("bytes", 300_000)
        assert problem["value"] > 300_000
        long = {**OWN, "text": " cat" * 40 + OWN["text"]}
        answer = client.post("/v1/prompt-search", json=request(template=long))
        assert answer.status_code == 422
        assert "more than 40 tokens" in answer.json()["detail"]


async def test_the_job_keeps_to_the_limit_as_well(
    host: LiveHost, live_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host may have been asked, with other limits."""
    settings = host.reception.settings.model_copy(update={"max_search_bytes": 300_000})
    monkeypatch.setattr(host.reception, "settings", settings)
    job = await ended(live_database, await begin(live_database, request(n=24)))
    assert job.state == "failed"
    assert "the limit is 300000" in json.dumps(job.error)


async def begin(database: Database, body: dict[str, Any]) -> uuid.UUID:
    """As the gateway does."""
    async with database.write() as session:
        account = Account(name=f"account-{uuid.uuid4().hex}")
        session.add(account)
        await session.flush()
        task = TaskSpec("prompt_search", 0, 0, {}, weight=100, queue="inference-tiny")
        job = await create_job(
            session,
            kind="prompt_search",
            account_id=account.id,
            params=body,
            stages=("search",),
            tasks=[task],
        )
        return job.id


async def ended(database: Database, job_id: uuid.UUID) -> JobOut:
    return await until_state(database, job_id, "succeeded", "failed", "cancelled")


async def test_the_job_ranks_features_by_what_they_really_do(
    client: httpx.AsyncClient, live_database: Database, world: LiveWorld
) -> None:
    body = request(saes=["1-res-std", "2-res-jump"])
    job = await ended(live_database, await begin(live_database, body))
    if not (job.result or {})["can_do"]:  # the other way round it can
        assert job.result is not None
        assert job.result["features"] == []
        assert "cannot do this task" in job.result["verdict"]
        body["template"] = {**OWN, "good": OWN["bad"], "bad": OWN["good"]}
        job = await ended(live_database, await begin(live_database, body))
    assert (job.state, job.done, job.total) == ("succeeded", 100, 100)
    assert job.result is not None
    found = job.result["features"]
    assert 0 < len(found) <= 6
    assert {one["sae"] for one in found} <= {"1-res-std", "2-res-jump"}
    assert [abs(one["effect"]) for one in found] == sorted(
        (abs(one["effect"]) for one in found), reverse=True
    )
    assert [source["sae"] for source in job.result["provenance"]["saes"]] == ["1-res-std", "2-res-jump"]
    assert "\\u0000" not in json.dumps(job.result)
    # the first one's effect is what ablating it on the prompts says
    best = found[0]
    template = body["template"]
    changes = []
    for prompt in job.result["prompts"]:
        asked = {
            "model": "tiny",
            "text": prompt["text"],
            "features": [{"sae": best["sae"], "feature": best["index"]}],
            "metric": {"good": template["good"], "bad": template["bad"]},
        }
        answer = (await client.post("/v1/ablate", json=asked)).json()
        assert answer["metric"]["default"] == pytest.approx(prompt["metric"], abs=1e-4)
        changes.append(answer["metric"]["change"])
    assert best["effect"] == pytest.approx(-sum(changes) / len(changes), abs=1e-4)


async def test_a_search_that_is_refused_fails_with_the_problem(
    client: httpx.AsyncClient, live_database: Database
) -> None:
    del client
    job = await ended(live_database, await begin(live_database, request(saes=["9-none"])))
    assert job.state == "failed"
    assert "9-none" in json.dumps(job.error)


async def test_a_cancelled_search_stops(client: httpx.AsyncClient, live_database: Database) -> None:
    del client
    long = request(n=256, k=200, saes=["0-res-topk", "1-res-std", "2-res-jump"], controls=None)
    job_id = await begin(live_database, {**long, "template": {**OWN, "slots": wide_slots()}})
    await until_state(live_database, job_id, "running")
    async with live_database.write() as session:
        await cancel_job(session, job_id)
    assert (await ended(live_database, job_id)).state == "cancelled"


def wide_slots() -> dict[str, Any]:
    """Slots that give hundreds of prompts."""
    words = ["red", "blue", "green", "light", "other", "more", "cat", "dog", "bird", "tree"]
    return {
        "COLOUR": {"values": words},
        "ANIMAL": {"values": words},
        "VERB": {"values": ["is", "was", "will be", "can", "had"]},
    }
