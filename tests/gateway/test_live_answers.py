"""What the gateway adds to the answers of hosts: stored numbers, explanations, links."""

from __future__ import annotations

import re
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import delete, func, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from interpedia_gateway.live import examples
from interpedia_shared.contracts.live.steering import SteerOut
from interpedia_shared.db.models import Explanation, SteeringRun
from interpedia_shared.db.session import Database
from tests.gateway.conftest import parse_events
from tests.support.factories import World, fill_version, make_account, make_version
from tests.support.hosts import ScriptedHost, problem, register_host

TOP = {"model": "tiny", "text": "by", "saes": ["1-res-test"]}
STEER: dict[str, Any] = {"model": "tiny", "prompt": "by", "seed": 3}
SHARE = {**STEER, "share": True}


def feature(index: int, **members: Any) -> dict[str, Any]:
    """A feature in a host's answer."""
    name = {"ref": f"tiny/1-res-test/{index}", "model": "tiny", "sae": "1-res-test", "index": index}
    return {**name, "explanation": None, **members}


def top_answer(indices: list[int], version: int | None) -> dict[str, Any]:
    """An answer of `/v1/activations/top`, per token as well."""
    found = [feature(index, value=1.5, position=1, token="by") for index in indices]
    source = {"sae": "1-res-test", "hook": "h", "weights_sha256": None, "version": version}
    provenance = {**examples.TOP["provenance"], "saes": [source]}
    by_token = [{"position": 1, "token": "by", "top": [feature(7, value=0.5, position=1, token="by")]}]
    return {**examples.TOP, "provenance": provenance, "results": found, "by_token": by_token}


@pytest.fixture
async def host(registry: Database, hosts: list[ScriptedHost]) -> ScriptedHost:
    """The only host."""
    await register_host(registry, "a", hosts[0].url)
    return hosts[0]


def answers(host: ScriptedHost, body: dict[str, Any]) -> None:
    """Let a host answer this."""
    host.reply = lambda _: JSONResponse(body)


class TestJoins:
    async def test_top_features_get_what_is_stored(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        answers(host, top_answer([3, 9, 12], None))
        body = (await caller.post("/v1/activations/top", json=TOP)).json()
        summaries = await caller.post(
            "/v1/features/batch", json={"refs": [f"tiny/1-res-test/{index}" for index in (3, 9, 12, 7)]}
        )
        stored = {one["summary"]["index"]: one["summary"] for one in summaries.json()["items"]}
        shown = [*body["results"], *body["by_token"][0]["top"]]
        assert [one["index"] for one in shown] == [3, 9, 12, 7]
        for one in shown:
            assert one["density"] == stored[one["index"]]["density"]
            assert one["max_activation"] == pytest.approx(stored[one["index"]]["max_activation"])
        assert [one["explanation"] for one in shown] == ["rivers", None, None, None]
        assert body["provenance"]["saes"][0]["version"] == known.version_id

    async def test_the_numbers_are_of_the_build_that_was_filtered_by(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        async with registry.write() as session:
            other = await make_version(session, known.sae_id, known.corpus_id, publish=False)
            await fill_version(session, known, other, seed=5)
            expected = known.stats[3].max_activation
        answers(host, top_answer([3], other))
        body = (await caller.post("/v1/activations/top", json=TOP)).json()
        assert body["results"][0]["max_activation"] == pytest.approx(expected)
        assert body["provenance"]["saes"][0]["version"] == other

    async def test_the_default_explanation_comes_before_newer_ones(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        texts = {"old": False, "default": True, "new": False}
        async with registry.write() as session:
            for text, is_default in texts.items():
                session.add(
                    Explanation(
                        sae_id=known.sae_id,
                        feature_idx=12,
                        text=text,
                        method="human",
                        account_id=known.account_id,
                        is_default=is_default,
                    )
                )
                await session.flush()
        found = [feature(12, attribution=1.0, by_position=[1.0], max_activation_here=2.0, exact=None)]
        answers(host, {**examples.ATTRIBUTE, "results": found})
        wanted = {"model": "tiny", "text": "by", "saes": ["1-res-test"], "metric": {"good": [" a"]}}
        body = (await caller.post("/v1/attribute", json=wanted)).json()
        async with registry.write() as session:
            await session.execute(delete(Explanation).where(Explanation.feature_idx == 12))
        assert body["results"][0]["explanation"] == "default"
        assert {**body["results"][0], "explanation": None} == found[0]

    async def test_problems_are_not_joined(self, caller: httpx.AsyncClient, host: ScriptedHost) -> None:
        host.reply = lambda _: problem(422, "too-long")
        answer = await caller.post("/v1/activations/top", json=TOP)
        assert (answer.status_code, answer.json()["detail"]) == (422, "too-long")

    async def test_many_features_at_once(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World
    ) -> None:
        answers(host, top_answer(list(range(40)) * 200, known.version_id))
        body = (await caller.post("/v1/activations/top", json=TOP)).json()
        assert all(one["density"] is not None for one in body["results"])


async def kept(database: Database) -> int:
    """How many runs are stored."""
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(SteeringRun)) or 0


def stream_of(host: ScriptedHost, last: bytes) -> None:
    """Let a host stream: start, a token, and this, in pieces that do not end where events do."""
    text = b'event: start\ndata: {}\n\n: alive\n\nevent: token\ndata: {"text": "x"}\n\n' + last
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    host.reply = lambda _: host.stream(pieces)


def done() -> bytes:
    """The last event of a good stream."""
    return b"event: done\ndata: " + orjson.dumps(examples.STEER) + b"\n\n"


class TestSharing:
    async def test_nothing_is_kept_unless_asked(
        self, caller: httpx.AsyncClient, host: ScriptedHost, registry: Database, known: World
    ) -> None:
        before = await kept(registry)
        answers(host, examples.STEER)
        answer = await caller.post("/v1/steer", json=STEER, headers={"x-api-key": known.key})
        assert answer.json() == examples.STEER
        stream_of(host, done())
        await caller.post("/v1/steer", json={**STEER, "stream": True}, headers={"x-api-key": known.key})
        assert await kept(registry) == before

    async def test_it_needs_a_key(self, caller: httpx.AsyncClient, host: ScriptedHost) -> None:
        answer = await caller.post("/v1/steer", json=SHARE)
        assert answer.status_code == 401
        assert host.seen == []

    async def test_a_shared_run_is_read_by_its_link(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World
    ) -> None:
        answers(host, examples.STEER)
        answer = await caller.post("/v1/steer", json=SHARE, headers={"x-api-key": known.key})
        shared = answer.json()["shared"]
        assert SteerOut.model_validate(answer.json())
        assert shared["url"] == f"http://gateway.test/v1/steer/shared/{shared['id']}"
        assert "share" not in host.seen[0].json()
        read = await caller.get(shared["url"])
        assert read.status_code == 200
        assert read.json()["answer"] == {k: v for k, v in examples.STEER.items() if k != "shared"}
        assert read.json()["request"]["seed"] == 3
        assert not {"share", "stream", "deadline_s"} & read.json()["request"].keys()
        again = await caller.post("/v1/steer", json=read.json()["request"])
        assert again.status_code == 200, "what was kept can be sent again"
        etag = {"if-none-match": read.headers["etag"]}
        assert (await caller.get(shared["url"], headers=etag)).status_code == 304

    async def test_streamed_too(self, caller: httpx.AsyncClient, host: ScriptedHost, known: World) -> None:
        stream_of(host, done())
        body = {**SHARE, "stream": True}
        answer = await caller.post("/v1/steer", json=body, headers={"x-api-key": known.key})
        events = parse_events(answer.text)
        assert [event["event"] for event in events] == ["start", "token", "done"]
        told = orjson.loads(events[-1]["data"])
        assert told == {**examples.STEER, "shared": told["shared"]}
        assert (await caller.get(told["shared"]["url"])).status_code == 200

    async def test_a_stream_that_fails_is_not_kept(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        before = await kept(registry)
        stream_of(host, b'event: error\ndata: {"status": 504}\n\n')
        body = {**SHARE, "stream": True}
        answer = await caller.post("/v1/steer", json=body, headers={"x-api-key": known.key})
        assert parse_events(answer.text)[-1] == {"event": "error", "data": '{"status": 504}'}
        assert await kept(registry) == before

    async def test_characters_that_postgres_cannot_hold(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World
    ) -> None:
        odd = {**examples.STEER["steered"], "text": "a\x00b", "tokens": ["a", "\x00b"]}
        answers(host, {**examples.STEER, "steered": odd})
        answer = await caller.post("/v1/steer", json=SHARE, headers={"x-api-key": known.key})
        assert answer.json()["steered"]["text"] == "a\x00b"
        read = (await caller.get(answer.json()["shared"]["url"])).json()
        assert read["answer"]["steered"]["tokens"] == ["a", "\u2400b"]

    async def test_the_same_request_again_has_the_same_link(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        answers(host, examples.STEER)
        headers = {"x-api-key": known.key, "idempotency-key": "share-1"}
        first = await caller.post("/v1/steer", json=SHARE, headers=headers)
        before = await kept(registry)
        second = await caller.post("/v1/steer", json=SHARE, headers=headers)
        assert first.json()["shared"] == second.json()["shared"]
        assert await kept(registry) == before
        other = await caller.post("/v1/steer", json={**SHARE, "seed": 4}, headers=headers)
        assert other.status_code == 409

    async def test_too_large_to_be_kept(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World
    ) -> None:
        one = {"vector": [0.123456789] * 60_000, "hook": "blocks.1.hook_resid_post"}
        body = {**SHARE, "interventions": [one, one]}
        answer = await caller.post("/v1/steer", json=body, headers={"x-api-key": known.key})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "#/share"
        assert host.seen == []

    async def test_only_its_owner_takes_it_back(
        self, caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
    ) -> None:
        async with registry.write() as session:
            _, stranger = await make_account(session, "stranger", scopes=())
        answers(host, examples.STEER)
        answer = await caller.post("/v1/steer", json=SHARE, headers={"x-api-key": known.key})
        path = "/v1/steer/shared/" + answer.json()["shared"]["id"]
        for headers, status in (({}, 401), ({"x-api-key": stranger}, 403), ({"x-api-key": known.key}, 204)):
            assert (await caller.delete(path, headers=headers)).status_code == status
        for answer in (await caller.get(path), await caller.delete(path, headers={"x-api-key": known.key})):
            assert answer.status_code == 404

    @pytest.mark.parametrize("run", ["x", "%00", "a" * 22, "a" * 5000, "%F0%9F"])
    async def test_unknown_runs(self, caller: httpx.AsyncClient, registry: Database, run: str) -> None:
        answer = await caller.get(f"/v1/steer/shared/{run}")
        assert answer.status_code == 404


async def test_events_come_as_they_happen(caller: httpx.AsyncClient, host: ScriptedHost) -> None:
    def reply(_: Request) -> Response:
        return host.stream([b"event: start\r\ndata: {}\r\n\r\n", b": c\n\n", b"event: done\ndata: {}\n\n"])

    host.reply = reply
    answer = await caller.post("/v1/steer", json={**STEER, "stream": True})
    assert answer.headers["cache-control"] == "no-store"
    assert re.sub(r"\r\n", "\n", answer.text) == "event: start\ndata: {}\n\n: c\n\nevent: done\ndata: {}\n\n"


async def test_a_refused_stream_is_a_problem(caller: httpx.AsyncClient, host: ScriptedHost) -> None:
    host.reply = lambda _: problem(422, "too-long")
    answer = await caller.post("/v1/steer", json={**STEER, "stream": True})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_run_that_cannot_be_kept_ends_in_an_error_event(
    caller: httpx.AsyncClient, host: ScriptedHost, known: World, registry: Database
) -> None:
    before = await kept(registry)
    stream_of(host, b"event: done\ndata: this is no answer\n\n")
    body = {**SHARE, "stream": True}
    answer = await caller.post("/v1/steer", json=body, headers={"x-api-key": known.key})
    events = parse_events(answer.text)
    assert [event["event"] for event in events] == ["start", "token", "error"]
    assert orjson.loads(events[-1]["data"])["status"] == 500
    assert await kept(registry) == before
