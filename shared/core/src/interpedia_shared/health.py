"""`/livez` (the process answers), `/readyz` (what it needs is there), `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from sqlalchemy import text

from interpedia_shared.db.session import Database
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import Problem, Unavailable
from interpedia_shared.schemas import Schema

Check = Callable[[], Awaitable[str | None]]
"""Raises when something is missing; may return a remark on what is there."""
CHECK_TIMEOUT_S = 3.0


class Health(Schema):
    """What a health route answers when all is well."""

    status: str = Field(examples=["ok"])
    service: str = Field(examples=["api-gateway"])
    version: str = Field(examples=["0.1.0"])
    checks: dict[str, str] = Field(default_factory=dict, examples=[{"database": "ok"}])


def database_check(database: Database) -> Check:
    """A check that runs one statement."""

    async def check() -> None:
        async with database.read() as session:
            await session.execute(text("SELECT 1"))

    return check


async def run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run all checks; the value is `ok`, perhaps with a remark, or what is wrong."""
    results: dict[str, str] = {}
    for name, check in checks.items():
        try:
            remark = await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
            results[name] = "ok" if remark is None else f"ok: {remark}"
        except Problem as problem:
            results[name] = problem.detail
        except Exception as error:  # noqa: BLE001  (a health check reports whatever went wrong)
            results[name] = type(error).__name__
    return results


def is_ok(result: str) -> bool:
    """Whether a result of `run_checks` is a good one."""
    return result == "ok" or result.startswith("ok: ")


def health_router(service: str, version: str, checks: Mapping[str, Check]) -> APIRouter:
    """The three routes that every service has."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> Health:
        """Say that the process answers. Nothing else is looked at."""
        return Health(status="ok", service=service, version=version)

    @router.get("/readyz", responses=problem_responses(Unavailable))
    async def readyz() -> Health:
        """Say whether everything this service needs is there; 503 names what is not."""
        results = await run_checks(checks)
        missing = sorted(name for name, result in results.items() if not is_ok(result))
        if missing:
            raise Unavailable(
                f"Not ready: {', '.join(missing)}.", extensions={"checks": results}, retry_after_s=2
            )
        return Health(status="ok", service=service, version=version, checks=results)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics of this process."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
