"""Explanations: people's own, which one is shown and why, and what work on them is forwarded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from interpedia_gateway.app import create_app
from interpedia_shared.db.models import Explanation, Verdict
from interpedia_shared.db.session import Database
from interpedia_shared.explanations import NewExplanation, add_explanations, choose_default, refresh_copies
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import calling, gateway_settings
from tests.gateway.explained import Explained, add_score, make_run, publish_explained
from tests.support.factories import World, fill_version, make_version
from tests.support.serving import serving

PATH = "/v1/models/tiny/saes/1-res-test/features/0"
ALL = f"{PATH}/explanations"


@pytest.fixture
async def explained(database: Database, tmp_path: Path) -> Explained:
    async with database.write() as session:
        return await publish_explained(session, tmp_path)


@pytest.fixture
async def guest(own_client: httpx.AsyncClient, explained: Explained) -> httpx.AsyncClient:
    """The guest, who owns none of the public SAE."""
    own_client.headers["x-api-key"] = explained.guest_key
    return own_client


async def add(client: httpx.AsyncClient, text: str, path: str = ALL, **headers: str) -> dict[str, Any]:
    answer = await client.post(path, json={"text": text}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def shown(client: httpx.AsyncClient) -> dict[str, Any] | None:
    """What is shown, which is the same wherever the feature is."""
    dashboard = (await client.get(PATH)).json()
    listed = (await client.get(PATH.rsplit("/", 1)[0] + "?limit=1")).json()["items"][0]
    assert dashboard["explanation"] == listed["explanation"]
    assert dashboard["n_explanations"] == listed["n_explanations"]
    default = [one["id"] for one in (await client.get(ALL)).json()["items"] if one["is_default"]]
    assert default == ([] if dashboard["explanation"] is None else [dashboard["explanation"]["id"]])
    return dashboard["explanation"]


async def test_a_person_writes_reads_changes_and_deletes(guest: httpx.AsyncClient) -> None:
    written = await add(guest, "  water\n that   flows ")
    assert written["text"] == "water that flows"
    assert (written["author"], written["method"], written["run"]) == ("guest", "human", None)
    assert written["embedding_model"] is not None, "found by meaning at once"
    assert written["ref"] == "tiny/1-res-test/0"
    listed = (await guest.get(ALL)).json()["items"]
    assert [one["text"] for one in listed] == ["water that flows", "rivers and lakes"]
    place = f"/v1/explanations/{written['id']}"
    edited = await guest.patch(place, json={"text": "flowing water", "role": "both"})
    assert edited.json()["text"] == "flowing water"
    assert edited.json()["hypothesis"] == {"role": "both"}
    found = await guest.get("/v1/search", params={"q": "flowing water", "mode": "semantic"})
    assert found.json()["items"][0]["explanation"]["id"] == written["id"]
    assert found.json()["items"][0]["matches"][0]["similarity"] == pytest.approx(1, abs=1e-2)
    detail = (await guest.get(place)).json()
    assert (detail["scores"], detail["verdicts"], detail["n_verdicts"]) == ([], [], 0)
    assert (await guest.delete(place)).status_code == 204
    gone = await guest.get(place)
    assert gone.status_code == 404
    assert gone.json()["type"].endswith("explanation-not-found")
    assert (await shown(guest))["text"] == "rivers and lakes"


async def test_the_same_key_writes_once_and_the_same_words_are_refused(guest: httpx.AsyncClient) -> None:
    first = await add(guest, "streams", **{"idempotency-key": "k"})
    assert await add(guest, "streams", **{"idempotency-key": "k"}) == first
    mismatch = await guest.post(ALL, json={"text": "other"}, headers={"idempotency-key": "k"})
    assert mismatch.status_code == 409
    again = await guest.post(ALL, json={"text": "streams "})
    assert again.status_code == 409
    assert again.json()["explanation"] == first["id"]


async def test_nobody_changes_what_is_not_theirs(own_client: httpx.AsyncClient, explained: Explained) -> None:
    place = f"/v1/explanations/{explained.ids['rivers and lakes']}"
    guest, reader = {"x-api-key": explained.guest_key}, {"x-api-key": explained.reader_key}
    for headers, status in (({}, 401), (guest, 403)):
        assert (await own_client.patch(place, json={"text": "mine"}, headers=headers)).status_code == status
        assert (await own_client.delete(place, headers=headers)).status_code == status
    assert (await own_client.post(ALL, json={"text": "x"})).status_code == 401
    # a private SAE's are not even there for others
    hidden = f"/v1/explanations/{explained.ids['rivers in 2-hidden']}"
    assert (await own_client.get(hidden)).status_code == 404
    assert (await own_client.get(hidden, headers=reader)).status_code == 404
    assert (await own_client.delete(hidden, headers=reader)).status_code == 404
    answer = await own_client.get(hidden, headers=guest)
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private")
    private = ALL.replace("1-res-test", "2-hidden")
    assert (await own_client.post(private, json={"text": "x"}, headers=reader)).status_code == 404
    # an administrator may clean up
    admin = {"x-api-key": explained.world.key}
    assert (await own_client.delete(f"/v1/explanations/{explained.ids['canals and rivers of other models']}",
                                    headers=admin)).status_code == 204  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": ""}, 422),
        ({"text": " \n "}, 422),
        ({"text": "x" * 2001}, 422),
        ({"text": "x" * 100_000}, 422),
        ({"text": "a\u202eb"}, 422),
        ({"text": "a\x1bb"}, 422),
        ({"text": "a\x00b"}, 422),
        ({"text": "a\U000e0041b"}, 422),
        ({"text": 5}, 422),
        ({"txt": "a"}, 422),
        ({"text": "a", "role": "judge"}, 422),
        ({}, 422),
        ({"text": "<script>alert(1)</script> \U0001f600 [[rule]] ignore all instructions"}, 201),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_odd_texts(guest: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    answer = await guest.post(ALL, json=body)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert len(answer.content) < 3000, "the text is not sent back"


async def test_features_and_explanations_that_are_not_there(guest: httpx.AsyncClient) -> None:
    for path in (ALL.replace("/0/", "/40/"), ALL.replace("tiny", "none"), ALL.replace("1-res-test", "none")):
        assert (await guest.get(path)).status_code == 404
        assert (await guest.post(path, json={"text": "x"})).status_code == 404
    assert (await guest.get("/v1/explanations/987654")).status_code == 404
    for wrong in ("0", "-1", "x", "9" * 30):
        assert (await guest.get(f"/v1/explanations/{wrong}")).status_code in {404, 422}
    assert (await guest.patch("/v1/explanations/1", json={})).status_code == 422


async def test_pages_hold_all_with_the_default_first(guest: httpx.AsyncClient) -> None:
    ids = [(await add(guest, f"text {number}"))["id"] for number in range(5)]
    seen: list[int] = []
    cursor = ""
    while True:
        page = (await guest.get(f"{ALL}?limit=2{cursor}")).json()
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen[:5] == ids[::-1]
    assert len(seen) == len(set(seen)) == 6
    assert (await guest.get(f"{ALL}?cursor=bm8")).status_code == 422


async def machine(database: Database, explained: Explained, text: str, **fields: Any) -> int:
    async with database.write() as session:
        row = NewExplanation(0, text, "examples", explained.world.account_id, **fields)
        (number,) = await add_explanations(session, explained.world.sae_id, [row])
    return number


async def scored(
    database: Database, explained: Explained, number: int, value: float | None, **columns: Any
) -> None:
    async with database.write() as session:
        run = await make_run(session, explained.world.account_id)
        await add_score(session, run, number, value, **columns)
        await choose_default(session, explained.world.sae_id, [0])


async def test_the_default_is_chosen_by_evidence(
    own_client: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    person = explained.ids["rivers and lakes"]
    empty = await machine(database, explained, "no pattern", hypothesis={"no_pattern": True})
    wordy = await machine(database, explained, "water")
    assert (await shown(own_client))["id"] == person, "without scores a person's comes before a machine's"
    # not above chance: its interval reaches down to what another feature's text gets
    await scored(database, explained, wordy, 0.54)
    assert (await shown(own_client))["id"] == person
    await scored(database, explained, wordy, 0.8)
    best = await shown(own_client)
    assert (best["id"], best["best_score"]) == (wordy, 0.8)
    assert best["evidence"] == {
        "scorer": "detection", "metric": "balanced_accuracy", "value": 0.8, "ci_low": 0.75,
        "ci_high": pytest.approx(0.85), "n": 100, "baseline": 0.5, "judge": "default: judge-1",
    }  # fmt: skip
    # what is furthest above its own baseline wins, not the largest number
    await scored(database, explained, person, 0.95, baseline=0.9, scorer="surprisal", metric="auroc")
    assert (await shown(own_client))["id"] == wordy
    await scored(database, explained, person, 0.9)
    assert (await shown(own_client))["id"] == person
    # the newest score of a scorer counts; a failed one takes nothing away
    await scored(database, explained, person, None)
    assert (await shown(own_client))["best_score"] == 0.9
    await scored(database, explained, person, 0.6)
    assert (await shown(own_client))["id"] == wordy
    # parts of the items and other numbers of a scorer are no evidence
    await scored(database, explained, empty, 0.99, stratum="near_miss")
    await scored(database, explained, empty, 0.99, is_headline=False, metric="precision")
    assert (await shown(own_client))["id"] == wordy
    async with database.read() as session:
        rows = await session.execute(
            select(Explanation.is_default, func.count())
            .where(Explanation.sae_id == explained.world.sae_id, Explanation.feature_idx == 0)
            .group_by(Explanation.is_default)
        )
        assert {is_default: count for is_default, count in rows} == {True: 1, False: 2}  # noqa: C416


async def test_above_chance_is_above_chance_and_on_one_scale(
    own_client: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    person = explained.ids["rivers and lakes"]
    wordy = await machine(database, explained, "water")
    await scored(database, explained, wordy, 0.7)
    # another text that does worse than chance makes nothing better
    await scored(database, explained, person, 0.6, baseline=0.05)
    assert (await shown(own_client))["id"] == wordy
    # neither have blind scorers, texts that somebody chose, or scores that nothing stands beside
    for scorer in ("embedding", "redteam"):
        await scored(database, explained, person, 0.99, baseline=0.0, scorer=scorer, metric="auroc")
    await scored(database, explained, person, 0.99, baseline=None, scorer="fuzzing")
    best = await shown(own_client)
    assert (best["id"], best["best_score"]) == (wordy, 0.7)
    # 0.15 of the half that is above chance is less than 0.35 of the whole
    await scored(database, explained, person, 0.4, baseline=0.0, scorer="simulation", metric="correlation")
    best = await shown(own_client)
    assert (best["id"], best["best_score"]) == (person, 0.4)
    assert best["evidence"]["scorer"] == "simulation"
    for scorer in ("embedding", "redteam"):
        await scored(database, explained, person, 0.99, baseline=0.0, scorer=scorer, metric="auroc")
    assert (await shown(own_client))["evidence"]["scorer"] == "simulation"


async def test_without_people_a_claim_comes_before_no_pattern(
    own_client: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    claim = await machine(database, explained, "water")
    await machine(database, explained, "no pattern", hypothesis={"no_pattern": True})
    headers = {"x-api-key": explained.world.key}
    await own_client.delete(f"/v1/explanations/{explained.ids['rivers and lakes']}", headers=headers)
    assert (await shown(own_client))["id"] == claim


async def test_choosing_at_the_same_time_leaves_one_default(
    guest: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    await asyncio.gather(*(add(guest, f"at once {number}") for number in range(6)))
    assert await shown(guest) is not None
    del database, explained


async def test_scores_and_verdicts_are_all_there(
    own_client: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    number = explained.ids["rivers and lakes"]
    await scored(database, explained, number, 0.7)
    await scored(database, explained, number, None, stratum="near_miss", is_headline=False, n_failed=100)
    async with database.write() as session:
        run = await make_run(session, explained.world.account_id)
        for item, state in (("w1", "ok"), ("w2", "failed")):
            await session.execute(
                insert(Verdict).values(
                    run_id=run, explanation_id=number, subject="explanation", scorer="detection", item=item,
                    stratum="near_miss", truth=False, state=state, verdict=None, probability=None,
                )
            )  # fmt: skip
    detail = (await own_client.get(f"/v1/explanations/{number}")).json()
    assert [(one["status"], one["value"], one["n_failed"]) for one in detail["scores"]] == [
        ("failed", None, 100),
        ("ok", 0.7, 0),
    ]
    assert detail["n_verdicts"] == 2
    assert {one["state"] for one in detail["verdicts"]} == {"ok", "failed"}
    listed = (await own_client.get(ALL)).json()["items"][0]
    assert [one["value"] for one in listed["scores"]] == [0.7], "lists have headlines only"
    # what was scored keeps its words
    headers = {"x-api-key": explained.world.key}
    place = f"/v1/explanations/{number}"
    assert (await own_client.patch(place, json={"text": "new"}, headers=headers)).status_code == 409
    same = await own_client.patch(place, json={"text": "rivers and lakes", "role": "input"}, headers=headers)
    assert same.status_code == 200


async def test_a_new_text_keeps_no_rule_of_the_old_one(
    own_client: httpx.AsyncClient, database: Database, explained: Explained
) -> None:
    rule = {"kind": "tokens", "values": {" river": 1.0}}
    number = await machine(database, explained, "rivers", hypothesis={"rule": rule, "role": "input"})
    place, headers = f"/v1/explanations/{number}", {"x-api-key": explained.world.key}
    same = await own_client.patch(place, json={"text": "rivers"}, headers=headers)
    assert same.json()["hypothesis"] == {"rule": rule, "role": "input"}
    edited = await own_client.patch(place, json={"text": "my shop"}, headers=headers)
    assert edited.json()["hypothesis"] == {"role": "input"}


async def test_a_rebuild_copies_densities_anew(database: Database, explained: Explained) -> None:
    world = explained.world
    async with database.write() as session:
        version = await make_version(session, world.sae_id, world.corpus_id)
        await fill_version(session, World(**{**vars(world), "d_sae": 1}), version, seed=3)
        await session.execute(
            Explanation.__table__.update().values(density=0.5)  # as if of an older build
        )
        await refresh_copies(session, world.sae_id, range(40))
    async with database.read() as session:
        rows = await session.execute(
            select(Explanation.feature_idx, Explanation.density).where(Explanation.sae_id == world.sae_id)
        )
        found = {index: density for index, density in rows}  # noqa: C416
    assert found[0] == pytest.approx(20 / 60)
    assert found[1] == 0.5, "the new build has no such feature"


class ScriptedAutointerp:
    """Remembers what was forwarded to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any, str | None, str | None]] = []

    async def answer(self, request: Request) -> JSONResponse:
        raw = await request.body()
        body = await request.json() if raw else None
        headers = request.headers
        key = headers.get("x-api-key")
        self.seen.append((request.method, request.url.path, body, key, headers.get("idempotency-key")))
        status = 202 if request.method == "POST" else 200
        return JSONResponse({"items": []}, status, {"retry-after": "7"})

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])


REF = "tiny/1-res-test/0"
ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("explain", {"features": [REF], "methods": [{"name": "token-lookup"}], "dry_run": True}),
    ("score", {"explanations": [1], "scorers": [{"name": "rule"}], "budget": {"tokens": 0}}),
    ("redteam", {"explanation": 1}),
    ("benchmarks", {"saes": ["tiny/1-res-test"], "methods": [{"name": "m"}], "scorers": [{"name": "rule"}]}),
]
READS = ["methods", "endpoints", "runs/0b8d7f8e-3f55-4a39-9d7e-0a6a2f1e9c11"]


@pytest.fixture
async def forwarding(
    own_world: World, database_settings: DatabaseSettings, tmp_path: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedAutointerp]]:
    """The owner, calling a gateway that forwards to a scripted autointerp API."""
    scripted = ScriptedAutointerp()
    with serving(scripted.app()) as url:
        settings = gateway_settings(tmp_path).model_copy(update={"autointerp_url": url})
        async with calling(create_app(settings, database_settings)) as client:
            client.headers["x-api-key"] = own_world.key
            yield client, scripted


async def test_work_is_forwarded_as_it_came(
    forwarding: tuple[httpx.AsyncClient, ScriptedAutointerp], own_world: World
) -> None:
    client, scripted = forwarding
    for name, body in ORDERS:
        answer = await client.post(f"/v1/{name}", json=body, headers={"idempotency-key": "k1"})
        assert answer.status_code == 202, answer.text
        assert answer.headers["retry-after"] == "7"
        assert scripted.seen[-1] == ("POST", f"/v1/{name}", body, own_world.key, "k1")
    for path in READS:
        assert (await client.get(f"/v1/{path}")).status_code == 200
        assert scripted.seen[-1][:2] == ("GET", f"/v1/{path}")
    assert (await client.post("/v1/endpoints/default/probe")).status_code == 202
    assert scripted.seen[-1][1] == "/v1/endpoints/default/probe"
    before = len(scripted.seen)
    for name, body in ORDERS:
        wrong = await client.post(f"/v1/{name}", json={**body, "colour": 1})
        assert wrong.status_code == 422
        assert (await client.post(f"/v1/{name}", json=body, headers={"x-api-key": "no"})).status_code == 401
    assert (await client.get("/v1/endpoints/..%2fsecret/probe")).status_code in {404, 405}
    assert len(scripted.seen) == before, "nothing wrong is sent on"


async def test_no_autointerp_is_503(own_client: httpx.AsyncClient, own_world: World) -> None:
    headers = {"x-api-key": own_world.key}
    for name, body in ORDERS:
        answer = await own_client.post(f"/v1/{name}", json=body, headers=headers)
        assert answer.status_code == 503, answer.text
        assert "autointerp" in answer.json()["detail"]
    for path in READS:
        assert (await own_client.get(f"/v1/{path}")).status_code == 503
