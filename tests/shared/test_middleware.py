"""What every service does with sizes, methods and faults, on an app without a database."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from prometheus_client import REGISTRY
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interpedia_shared.middleware import BodyLimit, RequestContext
from interpedia_shared.problem_handlers import install_handlers


class Body(BaseModel):
    """Any JSON body."""

    text: str


class Bounded(BaseModel):
    """Numbers and sizes with bounds."""

    number: int = Field(default=1, ge=1, le=10)
    finite: float = Field(default=0.0, allow_inf_nan=False)
    name: str = Field(default="x", max_length=3)
    items: list[int] = Field(default_factory=list[int], max_length=2)


def caller_of(error: Exception | None = None) -> AsyncClient:
    """A caller of an app with one JSON route and one that fails."""
    app = FastAPI()
    install_handlers(app, "https://docs.test/")
    app.add_middleware(BodyLimit, max_bytes=100, docs_url="https://docs.test/")
    app.add_middleware(RequestContext, service="middleware-test")

    @app.post("/json")
    async def read(body: Body) -> Body:
        return body

    @app.post("/bounded")
    async def bounded(body: Bounded) -> Bounded:
        return body

    @app.get("/fault")
    async def fault() -> None:
        if error is not None:
            raise error

    del read, bounded, fault
    return AsyncClient(
        transport=ASGITransport(app=app, raise_app_exceptions=False), base_url="http://app.test"
    )


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        ('{"number": 11}', {"le": 10, "value": 11}),
        ('{"number": -0.5}', {"value": -0.5}),
        ('{"number": 1000000000000000000000}', {"le": 10, "value": "1000000000000000000000"}),
        ('{"finite": NaN}', {"value": "nan"}),
        ('{"finite": -Infinity}', {"value": "-inf"}),
        ('{"name": "12345"}', {"max_length": 3, "value": 5}),
        ('{"items": [1, 2, 3]}', {"max_length": 2, "value": 3}),
        ('{"name": 7}', {"value": 7}),
        ('{"number": "many"}', {}),
    ],
)
async def test_a_bound_that_is_missed_is_told_with_the_value(body: str, limits: dict[str, Any]) -> None:
    async with caller_of() as client:
        answer = await client.post("/bounded", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    told = error.get("limits", {})
    assert {name: told.get(name) for name in limits} == limits
    assert ("value" in told) == ("value" in limits)


async def chunks(number: int) -> AsyncIterator[bytes]:
    """A JSON body in pieces, so that its length is not declared."""
    yield b'{"text": "'
    for _ in range(number):
        yield b"x" * 10
    yield b'"}'


async def test_a_chunked_json_body_over_the_limit_is_413() -> None:
    async with caller_of() as client:
        headers = {"content-type": "application/json"}
        refused = await client.post("/json", content=chunks(11), headers=headers)
        taken = await client.post("/json", content=chunks(5), headers=headers)
    assert refused.status_code == 413, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    body = refused.json()
    assert body["type"].endswith("too-large")
    assert (body["limit_bytes"], body["instance"]) == (100, "/json")
    assert body["request_id"] == refused.headers["x-request-id"]
    assert (taken.status_code, taken.json()) == (200, {"text": "x" * 50})


async def test_methods_nobody_knows_share_one_label() -> None:
    async with caller_of() as client:
        for number in range(3):
            await client.request(f"MADEUP{number}", "/json")
        await client.get("/fault")
    methods = {
        sample.labels["method"]
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("service") == "middleware-test"
    }
    assert "other" in methods
    assert "GET" in methods
    assert not any(method.startswith("MADEUP") for method in methods)


def from_driver(error: Exception) -> DBAPIError:
    """An error of the driver as SQLAlchemy raises it."""
    wrapped = DBAPIError("SELECT 1", {}, error)
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize(
    "error",
    [
        PoolTimeout("QueuePool limit of size 5 overflow 0 reached"),
        from_driver(asyncpg.TooManyConnectionsError("full")),
        from_driver(asyncpg.AdminShutdownError("going")),
        from_driver(asyncpg.QueryCanceledError("statement timeout")),
        asyncpg.QueryCanceledError("statement timeout"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        socket.gaierror(socket.EAI_NONAME, "no such host"),
        OSError(errno.EHOSTUNREACH, "no route"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
        TimeoutError(),
    ],
)
async def test_a_database_that_is_away_or_busy_is_503(error: Exception) -> None:
    async with caller_of(error) as client:
        answer = await client.get("/fault")
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"].endswith("unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file", "/data/x"),
        PermissionError(errno.EACCES, "not allowed", "/data/x"),
        OSError(errno.ENOSPC, "disk full"),
        from_driver(asyncpg.UndefinedTableError("no such table")),
    ],
)
async def test_other_faults_are_500_and_say_nothing_of_a_database(error: Exception) -> None:
    async with caller_of(error) as client:
        answer = await client.get("/fault")
    assert answer.status_code == 500
    assert "database" not in answer.text
