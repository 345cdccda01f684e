"""A bounded queue, deadlines, and callers that hang up: what keeps a busy host answering."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from interpedia_inference.admission import Admission, Cost, Ticket, admission
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.problems import ClientGone
from interpedia_shared.settings import DatabaseSettings
from tests.inference.live_host import LiveHost, live_host
from tests.support.live_world import LiveWorld

ASK: dict[str, Any] = {"model": "tiny", "texts": ["the red cat"], "features": ["tiny/1-res-std/7"]}


@pytest.fixture
def small(world: LiveWorld, live_settings: DatabaseSettings, host_settings: dict[str, Any]) -> Any:
    """Runs a host with limits of the test's own."""

    @contextmanager
    def run(**limits: Any) -> Iterator[LiveHost]:
        with live_host(InferenceSettings(**{**host_settings, **limits}), live_settings) as host:
            host.wait_until("ready")
            yield host

    return run


async def post(host: LiveHost, **changes: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=host.url, timeout=60, verify=False) as client:
        return await client.post("/v1/activations", json={**ASK, **changes})


async def depth(host: LiveHost, wanted: int) -> None:
    await asyncio.to_thread(host.wait_for, lambda now: now["queue_depth"] == wanted)


def refused(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.json()["type"].endswith(slug)
    return answer.json()


async def test_a_full_queue_refuses_at_once_and_serves_who_is_in(small: Any) -> None:
    with small(max_queue=2) as host:
        with host.held():
            waiting = [asyncio.create_task(post(host)) for _ in range(2)]
            await depth(host, 2)
            answer = await post(host)
            body = refused(answer, 429, "busy")
            assert (body["what"], body["limit"], body["value"]) == ("requests", 2, 3)
            assert int(answer.headers["retry-after"]) >= 1
            async with httpx.AsyncClient(base_url=host.url, timeout=300, verify=False) as client:
                assert (await client.get("/livez")).status_code == 200
            assert not any(task.done() for task in waiting)
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert (await post(host)).status_code == 200


async def test_the_queue_is_bounded_in_tokens_as_well(small: Any) -> None:
    with small(max_queue_tokens=100) as host, host.held():
        first = asyncio.create_task(post(host, token_ids=[[5] * 60], texts=[]))
        await depth(host, 1)
        await asyncio.sleep(0.2)
        body = refused(await post(host, token_ids=[[6] * 60], texts=[]), 429, "busy")
        assert (body["what"], body["limit"], body["value"]) == ("tokens", 100, 120)
        small_one = asyncio.create_task(post(host, token_ids=[[6] * 30], texts=[]))
        await depth(host, 2)
        assert not first.done()
        assert not small_one.done()
        first.cancel()
        small_one.cancel()


async def test_one_request_has_a_limit_of_its_own(small: Any) -> None:
    with small(max_request_tokens=100, max_memory_bytes=200_000) as host:
        body = refused(await post(host, token_ids=[[5] * 60] * 2, texts=[]), 413, "too-large")
        assert (body["what"], body["limit"], body["value"]) == ("tokens", 100, 120)
        saes = {"saes": ["1-res-std"], "features": []}
        body = refused(await post(host, token_ids=[[5] * 100], texts=[], **saes), 413, "too-large")
        assert body["what"] == "bytes"
        assert body["value"] > body["limit"] == 200_000
        assert (await post(host, token_ids=[[5] * 100], texts=[])).status_code == 200


async def test_effects_have_a_limit_of_their_own_and_all_their_texts_count(small: Any) -> None:
    with small(max_request_tokens=150, max_effect_tokens=50) as host:
        body = {
            "model": "tiny",
            "text": "the red cat",
            "features": ["tiny/1-res-std/7"],
            "method": "resample",
        }
        metric = {"good": [" river"], "bad": [" house"]}

        async def ask(route: str, **changes: Any) -> httpx.Response:
            async with httpx.AsyncClient(base_url=host.url, timeout=60, verify=False) as client:
                return await client.post(f"/v1/{route}", json=changes)

        for n, status in ((49, 200), (50, 422)):
            answer = await ask("ablate", **{**body, "resample_text": " river" * n})
            assert answer.status_code == status, answer.text
        assert "the limit is 50" in answer.json()["detail"]
        told = await ask("ablate", **{**body, "text": " river" * 49, "resample_text": " house" * 49})
        assert refused(told, 413, "too-large")["value"] == 3 * 50 + 50
        wanted = {"model": "tiny", "saes": ["1-res-std"], "metric": metric, "text": " river" * 50}
        assert "the limit is 50" in refused(await ask("attribute", **wanted), 422, "too-long")["detail"]
        assert (await post(host, token_ids=[[5] * 60], texts=[])).status_code == 200


async def test_the_wait_is_learnt_from_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated tokens take longer than those that are read: 100 of them 20 s here."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(admission, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    queue = Admission(InferenceSettings())

    def enter(tokens: int) -> Ticket:
        ticket = queue.enter("/v1/steer", None)
        queue.charge(ticket, Cost(tokens=tokens))
        return ticket

    for _ in range(40):
        ticket = enter(100)
        clock.now += 20.0
        queue.leave(ticket)
        clock.now += 1_000.0  # nobody is in: that says nothing
    waiting = [enter(100), enter(50)]
    assert 28 <= queue.wait_s() <= 31
    gone = enter(1_000)
    gone.end(ClientGone())
    queue.leave(gone)  # was not answered
    assert 28 <= queue.wait_s() <= 31
    for one in waiting:
        queue.leave(one)


async def test_a_deadline_ends_the_wait_and_frees_the_slot(host: LiveHost) -> None:
    with host.held():
        body = refused(await post(host, deadline_s=0.1), 504, "deadline-exceeded")
        assert body["limit_s"] == 0.1
        await depth(host, 0)
    assert (await post(host, deadline_s=30)).status_code == 200


async def test_who_hangs_up_frees_the_slot_at_once(host: LiveHost) -> None:
    with host.held():
        address = urlsplit(host.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        body = json.dumps(ASK).encode()
        lines = ["POST /v1/activations HTTP/1.1", "host: x", "content-type: application/json"]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
        writer.write(head.encode() + body)
        await writer.drain()
        await depth(host, 1)
        writer.close()
        await writer.wait_closed()
        await depth(host, 0)
    assert (await post(host)).status_code == 200


async def test_many_callers_share_passes_and_each_gets_its_own(host: LiveHost) -> None:
    texts = [" ".join(["the", "river", "and", "music", "tree"][: 1 + n % 5]) + f" {n}" for n in range(24)]
    alone = [(await post(host, texts=[text])).json()["results"] for text in texts[:5]]
    with host.held():
        asked = [asyncio.create_task(post(host, texts=[text])) for text in texts]
        await depth(host, len(texts))
        await asyncio.sleep(0.3)
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    for text, answer in zip(texts, answers, strict=True):
        assert "".join(answer["results"][0]["tokens"][1:]) == text
    for (one,), answer in zip(alone, answers, strict=False):
        (other,) = answer["results"]
        assert other["features"][0]["values"][1:] == pytest.approx(one["features"][0]["values"][1:], abs=2e-5)
    # all waited for the same pass
    assert len({answer["timings"]["run_ms"] for answer in answers}) < len(answers)
