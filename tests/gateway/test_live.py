"""Live requests through the gateway and a real inference host with the tiny model."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from interpedia import Client
from interpedia_inference.app import create_app as create_host
from interpedia_inference.settings import InferenceSettings
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.contracts.live.activations import ActivationsOut, LensOut, TopOut
from interpedia_shared.contracts.live.effects import AblateOut, AttributeOut, PromptTemplate
from interpedia_shared.contracts.live.requests import TokenizeOut
from interpedia_shared.contracts.live.steering import SteerOut
from interpedia_shared.db.session import Database
from interpedia_shared.schemas import Page
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import eager_gateway, parse_events
from tests.support.doc_examples import Example, Guide, read_guide
from tests.support.hosts import dead_url, register_host
from tests.support.live_world import LiveWorld, publish_live_world
from tests.support.serving import serving

GUIDE = read_guide(Path(__file__).parents[2] / "docs/live.md")
TEXT = "the cat and the dog was in the red house"
FEATURE = {"sae": "1-res-std", "feature": 3}
METRIC = {"good": ["red"], "bad": ["g"]}


@dataclass(frozen=True)
class Stack:
    """A gateway and a host on real sockets."""

    url: str
    host_url: str
    gateway: FastAPI
    database: Database
    world: LiveWorld


@contextmanager
def running_host(data_dir: Path, settings: DatabaseSettings) -> Iterator[str]:
    """A host that registers itself under the address at which it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    host = InferenceSettings(
        model="tiny", data_dir=data_dir, torch_threads=1, heartbeat_s=0.2, advertise_url=url
    )
    with serving(create_host(host, settings), listener):
        yield url


@pytest.fixture(scope="module")
def live_settings(postgres: LocalPostgres, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A database for this module."""

    async def copy() -> None:
        connection = await asyncpg.connect(postgres.database_url("postgres"))
        await connection.execute(f'CREATE DATABASE gateway_live TEMPLATE "{migrated_template}"')
        await connection.close()

    asyncio.run(copy())
    yield DatabaseSettings(url=SecretStr(postgres.database_url("gateway_live")))
    postgres.drop_database("gateway_live")


@pytest.fixture(scope="module")
async def stack(
    live_settings: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """Both, with the host ready."""
    data_dir = tmp_path_factory.mktemp("live")
    database = Database(live_settings)
    async with database.write() as session:
        world = await publish_live_world(session, data_dir)
    gateway = eager_gateway(data_dir, live_settings)
    with running_host(data_dir, live_settings) as host_url, serving(gateway) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as caller:
            for _ in range(600):
                served = (await caller.get("/v1/live")).json()["items"]
                if served and served[0]["ready"]:
                    break
                await asyncio.sleep(0.1)
        yield Stack(url, host_url, gateway, database, world)
    await database.dispose()


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        yield client


ROUTES: list[tuple[str, type[BaseModel], dict[str, Any]]] = [
    ("tokenize", TokenizeOut, {"text": TEXT}),
    ("activations", ActivationsOut, {"texts": [TEXT], "features": [FEATURE], "saes": ["0-res-topk"]}),
    ("activations/top", TopOut, {"text": TEXT, "saes": ["0-res-topk", "1-res-std"], "k": 4}),
    ("steer", SteerOut, {"prompt": TEXT, "interventions": [FEATURE], "max_new_tokens": 3, "seed": 1}),
    ("ablate", AblateOut, {"text": TEXT, "features": [FEATURE], "metric": METRIC}),
    ("attribute", AttributeOut, {"text": TEXT, "saes": ["1-res-std"], "metric": METRIC, "k": 4, "exact": 2}),
    ("lens", LensOut, {"text": TEXT, "k": 2}),
]


@pytest.mark.parametrize(("path", "shape", "body"), ROUTES, ids=[path for path, _, _ in ROUTES])
async def test_every_route_answers_as_described(
    caller: httpx.AsyncClient, path: str, shape: type[BaseModel], body: dict[str, Any]
) -> None:
    answer = await caller.post(f"/v1/{path}", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    found = shape.model_validate(answer.json())
    assert found.model_dump(mode="json").keys() == answer.json().keys()
    assert answer.json()["provenance"]["model"] == "tiny"


async def test_stored_numbers_are_joined(caller: httpx.AsyncClient, stack: Stack) -> None:
    body = {"model": "tiny", "text": TEXT, "saes": ["1-res-std", "1-bare"], "k": 100}
    found = (await caller.post("/v1/activations/top", json=body)).json()
    rows = stack.world.rows["1-res-std"]
    assert {one["sae"] for one in found["results"]} == {"1-res-std", "1-bare"}
    for one in found["results"]:
        if one["sae"] == "1-bare":
            assert (one["density"], one["max_activation"]) == (None, None)
        else:
            assert one["density"] == pytest.approx(rows[one["index"]]["density"])
            assert one["max_activation"] == pytest.approx(rows[one["index"]]["max_activation"])
    versions = {source["sae"]: source["version"] for source in found["provenance"]["saes"]}
    assert versions["1-bare"] is None
    assert versions["1-res-std"] == rows[0]["sae_version_id"]


async def test_density_filters_come_before_the_top(caller: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"model": "tiny", "text": TEXT, "saes": ["1-res-std"], "k": 1000}
    everything = (await caller.post("/v1/activations/top", json=body)).json()["results"]
    limit = sorted(one["density"] for one in everything)[len(everything) // 2]
    wanted = [one["index"] for one in everything if one["density"] <= limit][:3]
    found = await caller.post("/v1/activations/top", json={**body, "k": 3, "max_density": limit})
    assert [one["index"] for one in found.json()["results"]] == wanted


async def test_private_saes_are_for_their_owner(caller: httpx.AsyncClient, stack: Stack) -> None:
    body = {"model": "tiny", "text": TEXT, "saes": ["1-private"]}
    assert (await caller.post("/v1/activations/top", json=body)).status_code == 404
    mine = await caller.post("/v1/activations/top", json=body, headers={"x-api-key": stack.world.key})
    assert mine.status_code == 200, mine.text


BAD: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("tokenize", {"text": ""}, 422, "invalid-request", "#/text"),
    ("activations", {"texts": ["the " * 20_000], "saes": ["1-res-std"]}, 422, "too-long", "#/texts/0"),
    ("steer", {"prompt": "the", "max_new_tokens": 0}, 422, "invalid-request", "#/max_new_tokens"),
    ("steer", {"prompt": "the", "max_new_tokens": 10_000}, 422, "invalid-request", "#/max_new_tokens"),
    (
        "steer",
        {"prompt": "the", "interventions": [{"vector": [1.0], "hook": "blocks.1.hook_resid_post"}]},
        422,
        "invalid-request",
        "#/interventions/0/vector",
    ),
    (
        "ablate",
        {"text": "the", "features": [{"sae": "1-res-std", "feature": 10**6}]},
        404,
        "feature-not-found",
        None,
    ),
    ("lens", {"text": "the", "layers": [99]}, 422, "invalid-request", None),
]


@pytest.mark.parametrize(("path", "body", "status", "slug", "field"), BAD)
async def test_bad_input_is_a_problem(
    caller: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    status: int,
    slug: str,
    field: str | None,
) -> None:
    answer = await caller.post(f"/v1/{path}", json={"model": "tiny", **body})
    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (status, slug), answer.text
    assert answer.json()["instance"] == f"/v1/{path}"
    if field is not None:
        assert answer.json()["errors"][0]["field"] == field


async def test_over_a_megabyte_of_text_is_refused(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/tokenize", json={"model": "tiny", "text": "a" * 1_000_000})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["limits"] == {"max_length": 100_000, "value": 1_000_000}


STEER: dict[str, Any] = {
    "model": "tiny",
    "prompt": TEXT,
    "interventions": [{**FEATURE, "strength": 3, "unit": "raw"}],
    "seed": 5,
    "temperature": 1.0,
}


async def test_a_stream_says_what_the_whole_answer_says(caller: httpx.AsyncClient) -> None:
    body = {**STEER, "max_new_tokens": 6}
    whole = (await caller.post("/v1/steer", json=body)).json()
    events = parse_events((await caller.post("/v1/steer", json={**body, "stream": True})).text)
    assert (events[0]["event"], events[-1]["event"]) == ("start", "done")
    done = orjson.loads(events[-1]["data"])
    for output in ("default", "steered"):
        assert done[output] == whole[output]
        tokens = [orjson.loads(event["data"]) for event in events if event["event"] == "token"]
        text = "".join(token["text"] for token in tokens if token["output"] == output)
        assert text == whole[output]["text"]


async def test_a_caller_who_hangs_up_frees_the_host(stack: Stack, caller: httpx.AsyncClient) -> None:
    async def depth() -> int:
        async with httpx.AsyncClient() as direct:
            return (await direct.get(f"{stack.host_url}/v1/capabilities")).json()["queue_depth"]

    async def until(wanted: bool) -> None:
        for _ in range(100):
            if (await depth() > 0) == wanted:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"queue depth stayed at {await depth()}")

    body = {**STEER, "max_new_tokens": 400, "stream": True}
    async with caller.stream("POST", "/v1/steer", json=body) as answer:
        await anext(answer.aiter_lines())
        await until(True)
    await until(False)
    waiting = asyncio.create_task(caller.post("/v1/steer", json={**body, "stream": False}))
    await until(True)
    waiting.cancel()
    await until(False)


async def test_a_dead_host_in_the_registry_is_passed_over(stack: Stack, caller: httpx.AsyncClient) -> None:
    await register_host(stack.database, "0-dead", dead_url())
    answer = await caller.post("/v1/tokenize", json={"model": "tiny", "text": TEXT})
    assert answer.status_code == 200


async def test_a_run_of_odd_bytes_is_shared(stack: Stack, caller: httpx.AsyncClient) -> None:
    body = {**STEER, "temperature": 5.0, "max_new_tokens": 60, "share": True}
    answer = await caller.post("/v1/steer", json=body, headers={"x-api-key": stack.world.key})
    assert answer.status_code == 200, answer.text
    kept = (await caller.get(answer.json()["shared"]["url"])).json()
    assert kept["answer"]["steered"]["token_ids"] == answer.json()["steered"]["token_ids"]
    again = (await caller.post("/v1/steer", json=kept["request"])).json()
    assert again["steered"] == answer.json()["steered"], "a shared run can be repeated"


def _for_tiny(text: str) -> str:
    """Code of the guide, for the tiny model."""
    names = {"smollm2-135m-instruct": "tiny", "7-res-3k": "0-res-topk", "15-res-3k": "1-res-std"}
    names |= {"23-res-3k": "2-res-jump", '" she"': '"red"', '" he"': '"g"', "blocks.15.": "blocks.1."}
    for real, small in names.items():
        text = text.replace(real, small)
    text = re.sub(r"\[7, ?15, ?23, ?29\]", "[0,3]", text)
    return re.sub(r'("feature": ?|-res-[a-z]+/)\d+', r"\g<1>3", text)


SIMPLE = [one for one in GUIDE.requests if "$" not in one.path and one.path != "/v1/prompt-search"]


@pytest.mark.parametrize("example", SIMPLE, ids=[f"{n}-{one.name}" for n, one in enumerate(SIMPLE)])
async def test_examples_of_the_guide_run(caller: httpx.AsyncClient, stack: Stack, example: Example) -> None:
    headers = {"x-api-key": stack.world.key} if example.needs_key else {}
    content = None if example.body is None else _for_tiny(orjson.dumps(example.body).decode())
    headers["content-type"] = "application/json"
    answer = await caller.request(example.method, example.path, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "event: error" not in answer.text


async def test_the_guide_has_every_live_route(stack: Stack, caller: httpx.AsyncClient) -> None:
    schema = (await caller.get("/openapi.json")).json()
    live = {
        f"{method.upper()} {path}"
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if operation.get("tags") == ["live"]
    }
    assert len(live) >= 12
    shown = {re.sub(r"\$\w+", "{run}", one.name) for one in GUIDE.requests}
    assert live <= shown


def test_the_guides_python_runs(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    guide: Guide = GUIDE
    for code in guide.python:
        small = _for_tiny(code).replace("Client()", f"Client({stack.url!r})")
        exec(compile(small, "docs/live.md", "exec"), {})
    assert " | " in capsys.readouterr().out


async def test_templates_are_listed(caller: httpx.AsyncClient) -> None:
    answer = await caller.get("/v1/prompt-templates?model=tiny")
    assert answer.status_code == 200, answer.text
    page = Page[PromptTemplate].model_validate(answer.json())
    assert "gendered-pronoun" in [one.id for one in page.items]


OWN = {
    "id": "which-place",
    "text": "the {COLOUR} {ANIMAL} was in the",
    "good": [" river"],
    "bad": [" house"],
    "slots": {"COLOUR": {"values": ["red", "blue"]}, "ANIMAL": {"values": ["cat", "dog", "bird"]}},
    "roles": {"animal": "ANIMAL", "end": "last"},
}


async def test_a_search_ends_with_a_result(stack: Stack) -> None:
    with Client(stack.url, stack.world.key) as client:
        job = await asyncio.to_thread(
            client.live.prompt_search, "tiny", ["1-res-std"], OWN, n=4, k=2, controls=[]
        )
        done = await asyncio.to_thread(client.jobs.wait, job.id, timeout=120)
    assert (done.done, done.total) == (100, 100)
    assert done.result


async def test_a_template_of_two_token_answers_is_refused_by_field(
    stack: Stack, caller: httpx.AsyncClient
) -> None:
    body = {"model": "tiny", "saes": ["1-res-std"], "template": {**OWN, "bad": [" unheard of"]}, "n": 4}
    answer = await caller.post("/v1/prompt-search", json=body, headers={"x-api-key": stack.world.key})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith("#/template")
