"""Steering as server-sent events over a real socket: order, deltas, refusals, callers that hang up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.inference.live_host import LiveHost
from tests.support.live_world import LiveWorld

ADD = {"sae": "1-res-std", "feature": 5, "method": "add", "strength": 2.0}
Event = tuple[str, dict[str, Any]]


def request(**changes: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": "the red cat is in", "temperature": 1.0, "max_new_tokens": 12}
    return {**body, "interventions": [ADD], "stream": True, **changes}


async def events_of(response: httpx.Response) -> AsyncIterator[Event]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def stream(client: httpx.AsyncClient, **changes: Any) -> list[Event]:
    async with client.stream("POST", "/v1/steer", json=request(**changes)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events_of(response)]


async def test_the_stream_says_what_the_whole_answer_says(client: httpx.AsyncClient) -> None:
    events = await stream(client, n_logprobs=2)
    whole = (await client.post("/v1/steer", json=request(n_logprobs=2, stream=False))).json()
    assert [name for name, _ in events[:1] + events[-1:]] == ["start", "done"]
    start, done = events[0][1], events[-1][1]
    assert start["prompt_token_ids"] == whole["prompt_token_ids"]
    assert start["outputs"] == ["default", "steered"]
    for output in ("default", "steered"):
        tokens = [data for name, data in events if name == "token" and data["output"] == output]
        assert [token["position"] for token in tokens] == list(range(len(tokens)))
        assert [token["token_id"] for token in tokens] == whole[output]["token_ids"]
        assert "".join(token["text"] for token in tokens) == whole[output]["text"]  # deltas, all of them
        assert done[output] == whole[output]
    assert done["shared"] is None


async def test_characters_split_over_tokens_come_out_whole(
    client: httpx.AsyncClient, world: LiveWorld
) -> None:
    """At a high temperature the byte-level model writes mostly broken bytes: pieces join to one good text."""
    events = await stream(client, temperature=5, max_new_tokens=120, seed=3, outputs=["default"])
    tokens = [data for name, data in events if name == "token"]
    ids = [token["token_id"] for token in tokens if token["token_id"] not in world.model.eos_ids]
    assert max(world.model.vocabulary.join(ids)) > 0x7F  # there are some
    assert "".join(token["text"] for token in tokens) == world.model.vocabulary.text(ids)


async def test_a_stop_string_ends_one_output_and_not_the_other(client: httpx.AsyncClient) -> None:
    whole = (await client.post("/v1/steer", json=request(stream=False))).json()
    stop = whole["default"]["text"][2:4]
    events = await stream(client, stop=[stop])
    done = events[-1][1]
    assert done["default"]["finish_reason"] == "stop"
    told = "".join(data["text"] for name, data in events if name == "token" and data["output"] == "default")
    assert told == done["default"]["text"]
    assert stop not in told
    if stop not in whole["steered"]["text"]:
        assert done["steered"]["token_ids"] == whole["steered"]["token_ids"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"interventions": [{**ADD, "sae": "9-none"}]}, 404),
        ({"max_new_tokens": 600}, 422),
        ({"model": "other"}, 421),
    ],
)
async def test_what_refuses_a_request_has_its_own_status(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int
) -> None:
    answer = await client.post("/v1/steer", json=request(**changes))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_failure_in_the_middle_is_an_error_event(client: httpx.AsyncClient) -> None:
    wild = {"vector": [3e38] * 64, "hook": "blocks.1.hook_resid_post"}
    events = await stream(client, interventions=[{**wild, "positions": "generated"}] * 2, outputs=["steered"])
    assert [name for name, _ in events] == ["start", "token", "error"]
    problem = events[-1][1]
    assert (problem["status"], problem["errors"][0]["field"]) == (422, "#/interventions")
    assert problem["instance"] == "/v1/steer"


async def test_the_stream_begins_before_there_is_a_token(client: httpx.AsyncClient, host: LiveHost) -> None:
    with host.held():
        async with client.stream("POST", "/v1/steer", json=request()) as response:
            name, start = await anext(events_of(response))
            assert (name, start["outputs"]) == ("start", ["default", "steered"])
    assert (await stream(client, max_new_tokens=1))[-1][0] == "done"  # who hung up while waiting left nothing


async def test_what_fails_at_the_prompt_is_an_error_event(client: httpx.AsyncClient) -> None:
    wild = {"vector": [3e38] * 64, "hook": "blocks.1.hook_resid_post"}
    events = await stream(client, interventions=[wild] * 2, outputs=["steered"])
    assert [name for name, _ in events] == ["start", "error"]
    assert events[-1][1]["status"] == 422
    whole = await client.post("/v1/steer", json=request(interventions=[wild] * 2, stream=False))
    assert whole.status_code == 422


async def test_the_deadline_ends_a_stream_with_its_problem(client: httpx.AsyncClient, host: LiveHost) -> None:
    with host.held():
        events = await stream(client, deadline_s=0.3)
    assert [name for name, _ in events] == ["start", "error"]
    assert events[-1][1]["status"] == 504


async def gauge(client: httpx.AsyncClient, name: str) -> float:
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    raise AssertionError(f"no metric {name}")


async def test_a_caller_that_hangs_up_frees_its_rows(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/v1/steer", json=request(max_new_tokens=480)) as response:
        async for name, _ in events_of(response):
            if name == "token":
                break
    for _ in range(200):
        if await gauge(client, "interpedia_queue_depth") == 0:
            break
        await asyncio.sleep(0.02)
    assert await gauge(client, "interpedia_queue_depth") == 0
    # the shared batch is free again: a short request is not behind 480 tokens of two rows
    assert (await stream(client, max_new_tokens=2))[-1][0] == "done"


async def test_callers_share_a_batch_and_get_what_they_get_alone(client: httpx.AsyncClient) -> None:
    bodies = [
        request(stream=False, seed=seed, interventions=[{**ADD, "feature": 5 + seed}]) for seed in range(6)
    ]
    alone = [(await client.post("/v1/steer", json=body)).json() for body in bodies]
    together = await asyncio.gather(*(client.post("/v1/steer", json=body) for body in bodies))
    for one, answer in zip(alone, together, strict=True):
        for output in ("default", "steered"):
            assert answer.json()[output]["token_ids"] == one[output]["token_ids"]
            assert answer.json()[output]["logprobs"] == pytest.approx(one[output]["logprobs"], abs=1e-4)
