"""Which host gets a live request, and what becomes of it when hosts are dead, busy, slow or break off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from interpedia_gateway.app import create_app
from interpedia_gateway.state import Gateway
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import calling, eager_gateway, gateway_settings
from tests.support.factories import World
from tests.support.hosts import ScriptedHost, dead_url, forget_hosts, problem, register_host
from tests.support.serving import serving

TOKENIZE = {"model": "tiny", "text": "by the river"}
STEER = {"model": "tiny", "prompt": "by", "stream": True}


def running(app: FastAPI) -> dict[str, int]:
    """Requests that the gateway counts as under way."""
    gateway: Gateway = app.state.gateway
    return dict(gateway.hosts.running())


class TestNobodyThere:
    async def test_no_host_at_all(self, caller: httpx.AsyncClient, registry: Database) -> None:
        answer = await caller.post("/v1/tokenize", json=TOKENIZE)
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("host-not-ready")
        assert "'tiny'" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0

    async def test_states_are_named(self, caller: httpx.AsyncClient, registry: Database) -> None:
        await register_host(registry, "a", dead_url(), state="loading")
        await register_host(registry, "b", dead_url(), state="failed")
        await register_host(registry, "c", dead_url(), age_s=11)
        await register_host(registry, "d", dead_url(), model_id="other")
        answer = await caller.post("/v1/tokenize", json=TOKENIZE)
        assert answer.status_code == 503
        assert answer.json()["hosts"] == {"failed": 1, "loading": 1, "silent": 1}

    async def test_all_refuse_the_connection(
        self, caller: httpx.AsyncClient, registry: Database, app: FastAPI
    ) -> None:
        for name in "ab":
            await register_host(registry, name, dead_url())
        answer = await caller.post("/v1/tokenize", json=TOKENIZE)
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("host-not-ready")
        assert "retry-after" in answer.headers
        assert running(app) == {}


class TestChoice:
    async def test_the_dead_one_is_skipped(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        await register_host(registry, "a", dead_url())
        await register_host(registry, "b", hosts[0].url, queue_depth=5)
        for _ in range(2):
            answer = await caller.post("/v1/tokenize", json=TOKENIZE)
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        assert [seen.path for seen in hosts[0].seen] == ["/v1/tokenize"] * 2

    async def test_the_least_busy_one_is_asked(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        for host, depth in zip(hosts, (4, 1, 2), strict=True):
            await register_host(registry, f"host-{depth}", host.url, queue_depth=depth)
        await caller.post("/v1/tokenize", json=TOKENIZE)
        assert [len(host.seen) for host in hosts] == [0, 1, 0]

    async def test_callers_are_spread_before_the_registry_knows(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        for number, host in enumerate(hosts):
            host.delay_s = 0.3
            await register_host(registry, f"host-{number}", host.url)
        await asyncio.gather(*(caller.post("/v1/tokenize", json=TOKENIZE) for _ in range(6)))
        assert [len(host.seen) for host in hosts] == [2, 2, 2]

    async def test_of_equals_the_one_that_holds_the_sae(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        for number, host in enumerate(hosts):
            loaded = {"saes_loaded": ["1-res-test"] if number == 2 else []}
            await register_host(registry, f"host-{number}", host.url, capabilities=loaded)
        body = {"model": "tiny", "texts": ["by"], "saes": ["1-res-test"]}
        await caller.post("/v1/activations", json=body)
        assert [len(host.seen) for host in hosts] == [0, 0, 1]

    async def test_hosts_of_other_models_are_not_asked(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        await register_host(registry, "a", hosts[0].url, model_id="other")
        assert (await caller.post("/v1/tokenize", json=TOKENIZE)).status_code == 503
        assert hosts[0].seen == []

    async def test_the_registry_is_not_read_for_each_request(
        self, registry: Database, hosts: list[ScriptedHost], hosts_settings: DatabaseSettings, tmp_path: Path
    ) -> None:
        await register_host(registry, "a", hosts[0].url)
        settings = gateway_settings(tmp_path).model_copy(update={"hosts_kept_s": 60.0})
        async with calling(create_app(settings, hosts_settings)) as caller:
            assert (await caller.post("/v1/tokenize", json=TOKENIZE)).status_code == 200
            await forget_hosts(registry)
            assert (await caller.post("/v1/tokenize", json=TOKENIZE)).status_code == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "slug"), [(429, "busy"), (503, "host-not-ready"), (421, "wrong-host")]
    )
    async def test_another_one_is_asked(
        self,
        caller: httpx.AsyncClient,
        registry: Database,
        hosts: list[ScriptedHost],
        status: int,
        slug: str,
    ) -> None:
        hosts[0].reply = lambda _: problem(status, slug, 7)
        await register_host(registry, "a", hosts[0].url)
        await register_host(registry, "b", hosts[1].url, queue_depth=3)
        assert (await caller.post("/v1/tokenize", json=TOKENIZE)).status_code == 200
        assert [len(host.seen) for host in hosts] == [1, 1, 0]

    async def test_when_all_are_busy_the_caller_is_told_so(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost], app: FastAPI
    ) -> None:
        for number, host in enumerate(hosts):
            host.reply = lambda _: problem(429, "busy", 7)
            await register_host(registry, f"host-{number}", host.url)
        answer = await caller.post("/v1/tokenize", json=TOKENIZE)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["type"].endswith("busy")
        assert answer.headers["content-type"] == "application/problem+json"
        assert running(app) == {}

    @pytest.mark.parametrize("status", [404, 413, 422, 500, 504])
    async def test_other_problems_come_back_untouched(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost], status: int
    ) -> None:
        hosts[0].reply = lambda _: problem(status, "too-long")
        await register_host(registry, "a", hosts[0].url)
        await register_host(registry, "b", hosts[1].url)
        answer = await caller.post("/v1/tokenize", json=TOKENIZE)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert hosts[1].seen == []

    async def test_a_host_that_says_nothing_is_504(
        self,
        caller: httpx.AsyncClient,
        registry: Database,
        hosts: list[ScriptedHost],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("interpedia_gateway.live.service.GRACE_S", 0.1)
        hosts[0].delay_s = 30.0
        await register_host(registry, "a", hosts[0].url)
        answer = await caller.post("/v1/tokenize", json={**TOKENIZE, "deadline_s": 0.1})
        assert answer.status_code == 504
        assert answer.json()["type"].endswith("deadline-exceeded")


async def _breaking_server() -> tuple[asyncio.Server, str, list[int]]:
    """A server that hangs up on every request."""
    count = [0]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        count[0] += 1
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", count


class TestBreaks:
    async def test_one_break_is_tried_elsewhere(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
    ) -> None:
        server, url, count = await _breaking_server()
        async with server:
            await register_host(registry, "a", url)
            await register_host(registry, "b", hosts[0].url, queue_depth=1)
            assert (await caller.post("/v1/tokenize", json=TOKENIZE)).status_code == 200
            assert count == [1]

    async def test_a_request_that_breaks_two_hosts_is_not_shown_to_a_third(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost], app: FastAPI
    ) -> None:
        server, url, count = await _breaking_server()
        async with server:
            await register_host(registry, "a", url)
            await register_host(registry, "b", url)
            await register_host(registry, "c", hosts[0].url, queue_depth=1)
            answer = await caller.post("/v1/tokenize", json=TOKENIZE)
            assert (answer.status_code, count) == (503, [2])
        assert hosts[0].seen == []
        assert running(app) == {}

    async def test_a_stream_that_breaks_ends_in_an_error_event(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost], app: FastAPI
    ) -> None:
        events = [b"event: start\r\ndata: {}\r\n\r\n", b"event: tok"]
        hosts[0].reply = lambda _: hosts[0].stream(events, broken=True)
        await register_host(registry, "a", hosts[0].url)
        answer = await caller.post("/v1/steer", json=STEER)
        assert answer.headers["content-type"].startswith("text/event-stream")
        first, last, rest = answer.content.replace(b"\r\n", b"\n").split(b"\n\n")
        assert (first, rest) == (b"event: start\ndata: {}", b"")
        assert last.startswith(b"event: error\ndata: ")
        assert orjson.loads(last.split(b"data: ")[1])["status"] == 503
        assert running(app) == {}


async def _eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")


class TestHangingUp:
    """Over real sockets: an in-process caller cannot hang up."""

    @pytest.fixture
    def app(self, hosts_settings: DatabaseSettings, tmp_path: Path) -> FastAPI:
        """A gateway for one server: its connections are closed with it."""
        return eager_gateway(tmp_path, hosts_settings)

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/tokenize", TOKENIZE),
            ("/v1/activations/top", {"model": "tiny", "text": "by", "saes": ["1-res-test"]}),
            ("/v1/steer", STEER),
        ],
    )
    async def test_before_the_answer_begins(
        self, registry: Database, hosts: list[ScriptedHost], app: FastAPI, path: str, body: dict[str, object]
    ) -> None:
        hosts[0].delay_s = 30.0
        await register_host(registry, "a", hosts[0].url)
        with serving(app) as url:
            async with httpx.AsyncClient(base_url=url, timeout=300) as caller:
                waiting = asyncio.create_task(caller.post(path, json=body))
                await _eventually(lambda: bool(hosts[0].seen))
                waiting.cancel()
                await asyncio.wait({waiting})
            await _eventually(lambda: hosts[0].was_hung_up_on)
            await _eventually(lambda: running(app) == {})

    async def test_in_the_middle_of_a_stream(
        self, registry: Database, hosts: list[ScriptedHost], app: FastAPI
    ) -> None:
        event = b"event: start\ndata: {}\n\n"
        hosts[0].reply = lambda _: hosts[0].stream([event], for_ever=True)
        await register_host(registry, "a", hosts[0].url)
        with serving(app) as url:
            async with (
                httpx.AsyncClient(base_url=url, timeout=300) as caller,
                caller.stream("POST", "/v1/steer", json=STEER) as answer,
            ):
                assert (await anext(answer.aiter_bytes())).startswith(event)
                assert running(app) == {"a": 1}
            await _eventually(lambda: hosts[0].was_hung_up_on)
            await _eventually(lambda: running(app) == {})


class TestWhatIsSentOn:
    async def test_only_what_was_checked(
        self, caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost], known: World
    ) -> None:
        await register_host(registry, "a", hosts[0].url)
        headers = {"x-api-key": known.key, "x-request-id": "mine-7", "cookie": "a=b"}
        body = {"model": "tiny", "features": ["tiny/1-res-test/3"], "texts": ["by"], "prepend_bos": False}
        assert (await caller.post("/v1/activations", json=body, headers=headers)).status_code == 200
        (seen,) = hosts[0].seen
        assert seen.json() == {**body, "features": [{"sae": "1-res-test", "feature": 3}]}
        assert seen.headers["x-request-id"] == "mine-7"
        assert not {"x-api-key", "authorization", "cookie"} & seen.headers.keys()

    @pytest.mark.parametrize(
        ("path", "body", "status", "slug"),
        [
            ("/v1/tokenize", {"model": "none", "text": "a"}, 404, "model-not-found"),
            ("/v1/lens", {"model": "tiny", "text": ""}, 422, "invalid-request"),
            ("/v1/lens", {"model": "tiny", "text": "a", "extra": 1}, 422, "invalid-request"),
            ("/v1/activations/top", {"model": "tiny", "text": "a", "saes": ["no"]}, 404, "sae-not-found"),
            (
                "/v1/activations/top",
                {"model": "tiny", "text": "a", "saes": ["1-private"]},
                404,
                "sae-not-found",
            ),
            (
                "/v1/steer",
                {"model": "tiny", "prompt": "a", "interventions": [{"sae": "1-res-test", "feature": 40}]},
                404,
                "feature-not-found",
            ),
            (
                "/v1/ablate",
                {"model": "tiny", "text": "a", "features": ["other/1-res-test/4"]},
                422,
                "invalid-request",
            ),
            ("/v1/tokenize?k=1", TOKENIZE, 422, "invalid-request"),
        ],
    )
    async def test_refused_before_a_host_is_asked(
        self,
        caller: httpx.AsyncClient,
        registry: Database,
        hosts: list[ScriptedHost],
        path: str,
        body: dict[str, object],
        status: int,
        slug: str,
    ) -> None:
        await register_host(registry, "a", hosts[0].url)
        answer = await caller.post(path, json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["type"].endswith(slug)
        assert hosts[0].seen == []

    async def test_a_wrong_key_is_401(self, caller: httpx.AsyncClient, registry: Database) -> None:
        answer = await caller.post("/v1/tokenize", json=TOKENIZE, headers={"x-api-key": "ip_1_no"})
        assert answer.status_code == 401

    @pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000"', "NaN", "1e400"])
    async def test_odd_json(self, caller: httpx.AsyncClient, registry: Database, text: str) -> None:
        change = f'{{"sae": "1-res-test", "feature": 1, "strength": {text}}}'
        content = f'{{"model": "tiny", "prompt": "a", "interventions": [{change}]}}'
        answer = await caller.post("/v1/steer", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422, answer.text


async def test_models_served_are_listed(caller: httpx.AsyncClient, registry: Database) -> None:
    limits = {
        "max_tokens_per_text": 128,
        "max_new_tokens": 64,
        "max_batch_tokens": 512,
        "max_queue": 8,
        "deadline_s": 30.0,
    }
    told = {"dtype": "float32", "device": "cpu", "limits": limits, "routes": ["/v1/tokenize"]}
    await register_host(registry, "a", dead_url(), queue_depth=2, capabilities=told)
    await register_host(registry, "b", dead_url(), age_s=20)
    await register_host(
        registry, "c", dead_url(), model_id="other", state="failed", capabilities={"detail": "no such file"}
    )
    answer = await caller.get("/v1/live")
    other, tiny = answer.json()["items"]
    assert (tiny["model"], tiny["ready"], tiny["hosts"]) == ("tiny", True, {"ready": 1, "silent": 1})
    assert (tiny["queue_depth"], tiny["limits"], tiny["detail"]) == (2, limits, None)
    assert (other["ready"], other["hosts"], other["detail"]) == (False, {"failed": 1}, "no such file")


async def test_large_answers_are_passed_on_whole(
    caller: httpx.AsyncClient, registry: Database, hosts: list[ScriptedHost]
) -> None:
    content = b"[" + b"0.25," * 1_000_000 + b"0]"
    hosts[0].reply = lambda _: Response(content, media_type="application/json")
    await register_host(registry, "a", hosts[0].url)
    answer = await caller.post("/v1/tokenize", json=TOKENIZE)
    assert answer.content == content
    hosts[0].reply = lambda _: JSONResponse({})
    assert (await caller.post("/v1/tokenize", json=TOKENIZE)).json() == {}
