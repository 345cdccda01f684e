"""Whatever is asked, the answer is an answer: never a 5xx, and errors are always problems."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interpedia_shared.problem_handlers import MEDIA_TYPE
from tests.gateway.test_openapi import METHODS
from tests.support.factories import World

ODD = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "0",
            "-1",
            "1e400",
            "nan",
            "inf",
            "٣",
            "\x00",
            "..",
            "%",
            "null",
            "[]",
            "true",
            "9" * 40,
            "' OR 1=1 --",
        ]
    ),
)
KNOWN = {
    "model": ["tiny"],
    "sae": ["1-res-test"],
    "corpus": ["texts"],
    "file": ["cfg.json", "sae_weights.safetensors"],
    "index": ["0", "9", "39", "40", "-1"],
    "sort": ["index", "density", "max_activation"],
    "order": ["asc", "desc"],
    "limit": ["1", "50", "500"],
    "format": ["ndjson"],
    "alive": ["true", "false"],
    "promotes": [" river", "3", '"42"'],
    "which": ["decoder", "encoder"],
    "q": ["river", "tiny/1-res-test/0", '"a b" or -c', "\u202e", "&|!<>():*"],
    "mode": ["hybrid", "semantic", "keyword"],
    "author": ["owner"],
    "explanation": ["1", "2"],
    "min_score": ["-1", "0.5"],
}


def value(name: str) -> st.SearchStrategy[str]:
    """A right value about half of the time, so that the fuzz gets past the first check."""
    return st.one_of(st.sampled_from(KNOWN[name]), ODD) if name in KNOWN else ODD


@st.composite
def requests(draw: st.DrawFn, routes: list[tuple[str, list[str]]]) -> tuple[str, dict[str, str]]:
    """A GET of one of the routes with some of its parameters."""
    path, parameters = draw(st.sampled_from(routes))
    for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
        path = path.replace("{" + name + "}", quote(draw(value(name)), safe=""))
    chosen = draw(st.lists(st.sampled_from(parameters), unique=True, max_size=4)) if parameters else []
    return path, {name: draw(value(name)) for name in chosen}


def routes_of(schema: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """All GET routes with the names of their query parameters."""
    found: list[tuple[str, list[str]]] = []
    for path, methods in schema["paths"].items():
        if "get" in methods and methods.keys() <= METHODS:
            parameters = [
                entry["name"] for entry in methods["get"].get("parameters", []) if entry["in"] == "query"
            ]
            found.append((path, parameters))
    return found


def check(answer: httpx.Response) -> None:
    """An answer that a program can rely on."""
    assert answer.status_code < 500, f"{answer.request.url}: {answer.text}"
    if answer.status_code >= 400 and answer.status_code != 416:
        assert answer.headers["content-type"] == MEDIA_TYPE
        body = orjson.loads(answer.content)
        assert body["status"] == answer.status_code
        assert body["request_id"]


@pytest.mark.parametrize("with_key", [False, True])
async def test_no_get_ever_ends_in_a_5xx(client: httpx.AsyncClient, world: World, with_key: bool) -> None:
    routes = routes_of((await client.get("/openapi.json")).json())
    routes = [route for route in routes if route[0] not in FORWARDED]
    if with_key:  # the other forwarded read needs one
        routes = [route for route in routes if "uploads" not in route[0]]
    headers = {"x-api-key": world.key} if with_key else {}
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(asked=requests(routes))
    def run(asked: tuple[str, dict[str, str]]) -> None:
        path, query = asked
        url = path + (
            "?" + "&".join(f"{name}={quote(text, safe='')}" for name, text in query.items()) if query else ""
        )
        asking = client.get(url, headers=headers)
        check(asyncio.run_coroutine_threadsafe(asking, loop).result(60))

    await asyncio.to_thread(run)


FORWARDED = {"/v1/prompt-templates", "/v1/methods", "/v1/endpoints", "/v1/runs/{run}"}
"""There is nobody to ask here: a 503."""

ODD_BODIES = [
    *(b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"refs": 1}', b'{"refs": [1]}'),
    *(b'{"refs": ["\\ud800"]}', b'{"refs": ["a/b/\\u0000"]}', b"[" * 100_000),
]


POSTED = [
    "/v1/features/batch",
    *(f"/v1/{name}" for name in ("tokenize", "activations", "activations/top", "steer", "ablate")),
    *(f"/v1/{name}" for name in ("attribute", "lens")),
    "/v1/models/tiny/saes/1-res-test/features/0/explanations",
]


@pytest.mark.parametrize("path", POSTED)
async def test_odd_bodies_are_refused_or_answered(client: httpx.AsyncClient, world: World, path: str) -> None:
    headers = {"content-type": "application/json", "x-api-key": world.key}
    for content in ODD_BODIES:
        check(await client.post(path, content=content, headers=headers))
