"""The service around the model: health, its place in the registry, and what it says without a model."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import delete, select

from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.models import LanguageModel as LoadedModel
from interpedia_inference import lifetime
from interpedia_inference.app import create_app
from interpedia_inference.hosts.describe import Description
from interpedia_inference.hosts.heartbeat import Heartbeat
from interpedia_inference.prompt_search.job import PromptSearch
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.model import ModelHost
from interpedia_inference.visits.reception import Reception
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.contracts.live.capabilities import Capabilities
from interpedia_shared.db.models import InferenceHost, LanguageModel, Tokenizer
from interpedia_shared.db.session import Database
from interpedia_shared.problems import HostNotReady
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.tokens import Vocabulary
from tests.inference.live_host import PATIENCE_S, LiveHost, live_host
from tests.support.live_world import LiveWorld, tiny_model

TOKENIZE = {"model": "tiny", "text": "the river"}


async def register_tiny(database: Database, source: dict[str, Any] | None = None) -> None:
    model = tiny_model()
    async with database.write() as session:
        await session.execute(delete(LanguageModel))
        await session.execute(delete(Tokenizer))
        packed = Vocabulary(model.vocabulary.entries).pack()
        session.add(Tokenizer(hash="t", vocabulary=packed, size=len(model.vocabulary)))
        await session.flush()
        session.add(
            LanguageModel(
                id="tiny",
                name="Tiny",
                source=source or {"kind": "tiny"},
                shape={},
                provenance={},
                tokenizer_hash="t",
                bos_token_id=1,
            )
        )


async def hosts(database: Database) -> list[InferenceHost]:
    async with database.read() as session:
        return list(await session.scalars(select(InferenceHost)))


async def get(host: LiveHost, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=host.url, timeout=300, verify=False) as client:
        return await client.get(path)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def tokenize(host: LiveHost) -> httpx.Response:
    async with httpx.AsyncClient(base_url=host.url, timeout=300, verify=False) as client:
        return await client.post("/v1/tokenize", json=TOKENIZE)


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"].endswith(slug)
    return body


async def test_a_host_waits_for_its_model_then_serves_it_and_leaves_the_registry(
    database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    settings = InferenceSettings(model="tiny", data_dir=tmp_path, torch_threads=1, heartbeat_s=0.1)
    with live_host(settings, database_settings) as host:
        ready = await get(host, "/readyz")
        assert ready.status_code == 200
        assert ready.json()["checks"]["model"] == "ok: Model 'tiny' is not registered yet."
        answer = await tokenize(host)
        body = problem(answer, 503, "host-not-ready")
        assert (body["state"], body["model"]) == ("waiting", "tiny")
        assert int(answer.headers["retry-after"]) > 0

        await register_tiny(database)
        host.wait_until("ready")
        assert (await get(host, "/readyz")).json()["checks"]["model"] == "ok"
        assert (await tokenize(host)).status_code == 200
        deadline = time.monotonic() + 20
        while (await hosts(database))[0].state != "ready":
            assert time.monotonic() < deadline
        (row,) = await hosts(database)
        assert (row.model_id, row.url) == ("tiny", "http://127.0.0.1:8001")
        assert "/v1/activations" in Capabilities.model_validate(row.capabilities).routes
    assert await hosts(database) == []


async def test_a_model_that_cannot_be_loaded_is_said_so(
    database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    await register_tiny(database, {"kind": "local", "path": str(tmp_path / "nothing")})
    settings = InferenceSettings(model="tiny", data_dir=tmp_path, torch_threads=1)
    with live_host(settings, database_settings) as host:
        said = host.wait_until("failed")
        assert "there is no folder 'nothing'" in said["detail"]
        ready = await get(host, "/readyz")
        assert "there is no folder" in problem(ready, 503, "unavailable")["checks"]["model"]
        answer = await tokenize(host)
        assert problem(answer, 503, "host-not-ready")["state"] == "failed"
        assert (await get(host, "/livez")).status_code == 200


async def test_health_metrics_and_capabilities(client: httpx.AsyncClient, world: LiveWorld) -> None:
    assert (await client.get("/livez")).json()["service"] == "inference"
    said = Capabilities.model_validate((await client.get("/v1/capabilities")).json())
    assert (said.model, said.state, said.dtype, said.device) == ("tiny", "ready", "float32", "cpu")
    assert said.limits.max_tokens_per_text == world.model.max_positions == 512
    await client.post("/v1/tokenize", json=TOKENIZE)
    metrics = (await client.get("/metrics")).text
    for name in ("interpedia_queue_depth", "interpedia_live_seconds", "interpedia_batch_rows"):
        assert name in metrics


async def test_another_model_is_at_another_host(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/tokenize", json={**TOKENIZE, "model": "gpt2-small"})
    assert problem(answer, 421, "wrong-host")["served"] == "tiny"


async def test_ready_says_what_is_missing() -> None:
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody:x@127.0.0.1:1/none"))
    app = create_app(InferenceSettings(), nowhere)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.get("/readyz")
        assert "database" in problem(answer, 503, "unavailable")["detail"]
        assert (await client.get("/livez")).status_code == 200


async def test_unknown_route_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_huge_body_is_not_even_read() -> None:
    settings = InferenceSettings()
    app = create_app(settings, DatabaseSettings(url=SecretStr("postgresql://nobody:x@127.0.0.1:1/none")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.post("/v1/tokenize", content=b" " * (settings.max_body_bytes + 1))
    assert problem(answer, 413, "too-large")["limit_bytes"] == settings.max_body_bytes


async def test_tokens_of_a_text(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = (await client.post("/v1/tokenize", json={"model": "tiny", "text": "the river €"})).json()
    assert answer["token_ids"] == [world.model.bos_id, *world.model.tokenize("the river €")]
    assert answer["tokens"][:3] == ["<|im_start|>", "the", " river"]
    assert answer["tokens"][-3:] == ["<0xE2>", "<0x82>", "<0xAC>"]
    assert answer["provenance"]["bos"] == "prepended"
    assert (answer["count"], answer["limit"]) == (len(answer["tokens"]), 512)
    bare = await client.post("/v1/tokenize", json={"model": "tiny", "text": "the", "prepend_bos": False})
    assert bare.json()["token_ids"] == world.model.tokenize("the")
    assert bare.json()["provenance"]["bos"] == "none"


async def test_bos_is_never_there_twice(client: httpx.AsyncClient, world: LiveWorld) -> None:
    answer = (await client.post("/v1/tokenize", json={"model": "tiny", "text": "<|im_start|>the"})).json()
    assert answer["token_ids"] == [world.model.bos_id, *world.model.tokenize("the")]


async def test_tokens_of_a_chat(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "the cat"}]
    answer = (await client.post("/v1/tokenize", json={"model": "tiny", "messages": messages})).json()
    assert "".join(answer["tokens"]) == "<|im_start|>user the cat<|im_end|><|im_start|>assistant "


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"text": ""}, "#/text"),
        ({"text": "a" * 1_000_000}, "#/text"),
        ({"text": "half \ud83d of a pair"}, "#"),
        ({}, "#"),
        ({"text": "a", "messages": [{"role": "user", "content": "a"}]}, "#"),
        ({"messages": [{"role": "user", "content": ""}]}, "#/messages"),
        ({"text": "a", "deadline_s": 0}, "#/deadline_s"),
        ({"text": "a", "nonsense": 1}, "#/nonsense"),
    ],
)
async def test_bad_texts_name_the_field(client: httpx.AsyncClient, body: dict[str, Any], where: str) -> None:
    content = json.dumps({"model": "tiny", **body})
    headers = {"content-type": "application/json"}
    answer = problem(
        await client.post("/v1/tokenize", content=content, headers=headers), 422, "invalid-request"
    )
    assert answer["errors"][0]["field"].startswith(where)


async def test_a_text_of_any_length_is_counted(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/tokenize", json={"model": "tiny", "text": "the " * 20_000})).json()
    assert answer["count"] > answer["limit"]
    assert answer["is_cut"]
    assert len(answer["tokens"]) == len(answer["token_ids"]) == answer["limit"]


async def test_a_chat_of_any_length_is_counted_too(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "the " * 2_000}]
    answer = (await client.post("/v1/tokenize", json={"model": "tiny", "messages": messages})).json()
    assert answer["count"] > len(answer["tokens"]) == answer["limit"]


def test_memory_of_texts_is_bounded(
    world: LiveWorld, live_settings: DatabaseSettings, host_settings: dict[str, Any]
) -> None:
    settings = InferenceSettings(**{**host_settings, "max_memory_bytes": 1_000_000})
    with live_host(settings, live_settings) as host, httpx.Client(base_url=host.url, timeout=60) as client:
        host.wait_until("ready")
        text = "the " * 20_000
        for said in ({"text": text}, {"messages": [{"role": "user", "content": text}]}):
            answer = client.post("/v1/tokenize", json={"model": "tiny", **said})
            assert problem(answer, 413, "too-large")["what"] == "bytes"
        assert (client.post("/v1/tokenize", json=TOKENIZE)).status_code == 200


async def test_many_texts_do_not_keep_the_event_loop(
    host: LiveHost, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = host.reception.host.require("tiny")
    threads: list[str] = []
    plain = type(model).tokenize

    def noting(self: LoadedModel, text: str) -> list[int]:
        threads.append(threading.current_thread().name)
        return plain(self, text)

    monkeypatch.setattr(type(model), "tokenize", noting)
    body = {"model": "tiny", "texts": ["the " * 100] * 12, "features": ["tiny/1-res-std/7"]}
    assert (await client.post("/v1/activations", json=body)).status_code == 200
    assert len(threads) == 12
    assert threads.count(threads[0]) == 2_000 // 400, "the first are short enough for the event loop"


async def test_a_model_that_cannot_be_computed_with_is_said_so(database: Database, tmp_path: Path) -> None:
    await register_tiny(database)

    def refuse(model: LoadedModel) -> None:
        raise UnsupportedHook("model", "cannot be decoded here")

    host = ModelHost(database, InferenceSettings(model="tiny", data_dir=tmp_path, torch_threads=1), refuse)
    running = asyncio.create_task(host.run())
    await until(lambda: host.state not in ("waiting", "loading"))
    running.cancel()
    assert (host.state, host.detail) == ("failed", "model: cannot be decoded here")
    with pytest.raises(HostNotReady):
        host.require("tiny")


async def test_a_worker_that_fails_leaves_the_registry_alone_and_is_begun_anew(
    database: Database,
    database_settings: DatabaseSettings,
    postgres: LocalPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await register_tiny(database)
    settings = InferenceSettings(model="tiny", data_dir=tmp_path, torch_threads=1, heartbeat_s=0.02)
    monkeypatch.setattr(lifetime, "RESTART_S", 0.02)
    without_tables = DatabaseSettings(url=SecretStr(postgres.database_url("postgres")))
    reception: Reception = create_app(settings, database_settings).state.reception
    beats = 0

    def describe() -> Capabilities:
        nonlocal beats
        beats += 1
        return Description(
            reception.host, reception.admission, reception.shelf, settings=settings, routes=[]
        ).now()

    whole = lifetime.Lifetime(
        reception,
        Heartbeat(database, settings, describe),
        handlers={"prompt_search": PromptSearch(reception)},
        database_settings=without_tables,
    )
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(whole.run())

        def failures() -> int:
            return sum(entry["event"] == "worker_failed" for entry in logs)

        await until(lambda: failures() >= 2 or running.done())
        seen = beats
        await until(lambda: beats >= seen + 3 or running.done())
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await whole.end()


def test_the_host_is_its_own(host: LiveHost) -> None:
    """The control: what these tests talk to is a host behind a socket, not the app in this thread."""
    assert host.url.startswith("http://127.0.0.1:")
