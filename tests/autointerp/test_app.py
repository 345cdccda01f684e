"""The autointerp API: healthy, it says what it can do, and what is missing."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from interpedia_autointerp.app import create_app
from interpedia_autointerp.settings import AutointerpSettings
from interpedia_shared.settings import DatabaseSettings
from tests.support.autointerp import llm_of


def client_of(settings: DatabaseSettings) -> httpx.AsyncClient:
    app = create_app(AutointerpSettings(), settings, llm_of(None))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.fixture
def client(database_settings: DatabaseSettings) -> httpx.AsyncClient:
    return client_of(database_settings)


async def test_health_and_routes(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json()["service"] == "autointerp"
    assert (await client.get("/readyz")).json()["checks"] == {"database": "ok"}
    routes = (await client.get("/openapi.json")).json()["paths"]
    for path in ("explain", "score", "redteam", "benchmarks", "methods", "endpoints", "runs/{run}"):
        assert f"/v1/{path}" in routes
    assert "interpedia_requests_total" in (await client.get("/metrics")).text


async def test_ready_says_what_is_missing() -> None:
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody:x@127.0.0.1:1/none"))
    async with client_of(nowhere) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "database" in answer.json()["detail"]
        assert (await client.get("/livez")).status_code == 200


async def test_unknown_route_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
