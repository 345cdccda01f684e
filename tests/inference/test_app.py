"""The inference service is an honest shell: healthy, and it says that it does nothing yet."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from interpedia_inference.app import create_app
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.settings import DatabaseSettings


@pytest.fixture
def client(database_settings: DatabaseSettings) -> httpx.AsyncClient:
    app = create_app(InferenceSettings(), database_settings)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def test_health_and_capabilities(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json()["service"] == "inference"
    assert (await client.get("/readyz")).json()["checks"] == {"database": "ok"}
    assert (await client.get("/v1/capabilities")).json() == {"routes": []}
    assert "interpedia_requests_total" in (await client.get("/metrics")).text


async def test_ready_says_what_is_missing() -> None:
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody:x@127.0.0.1:1/none"))
    app = create_app(InferenceSettings(), nowhere)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "database" in answer.json()["detail"]
        assert (await client.get("/livez")).status_code == 200


async def test_unknown_route_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
