"""Turn every exception of a service into one problem+json answer."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from interpedia_shared.problems import InternalError, Invalid, NotFound, Problem, Unavailable

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)
_MAX_SHOWN_DIGITS = 40


class MethodProblem(Problem):
    """The path exists, the method does not; rendered as `about:blank`."""

    slug, title, status = "about:blank", "Method not allowed", 405


def problem_response(request: Request, problem: Problem) -> Response:
    """Render one problem for one request."""
    state = request.app.state
    body = problem.body(getattr(state, "docs_url", ""))
    body["instance"] = request.url.path
    body["request_id"] = getattr(request.state, "request_id", None)
    headers = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body, default=str), problem.status, headers, MEDIA_TYPE)


def pointer(location: Sequence[str | int]) -> str:
    """FastAPI's error location as a JSON pointer (body) or a plain name (query, path, header)."""
    kind, *rest = location
    if kind == "body":
        return "#/" + "/".join(str(part) for part in rest)
    return ".".join(str(part) for part in rest) or str(kind)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors: list[dict[str, Any]] = []
    for item in error.errors():
        entry: dict[str, Any] = {"field": pointer(item["loc"]), "detail": item["msg"]}
        limits = _limits(item)
        if limits:
            entry["limits"] = limits
        errors.append(entry)
    detail = "; ".join(f"{entry['field']}: {entry['detail']}" for entry in errors[:5])
    return problem_response(request, Invalid(detail, extensions={"errors": errors}))


def _limits(item: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds that a value missed, and the value: the number, or the length of a text or list."""
    context = item.get("ctx")
    limits: dict[str, Any] = {}
    if isinstance(context, Mapping):
        limits = {str(k): v for k, v in context.items() if isinstance(v, (int, float, str))}
    given = item.get("input")
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        # JSON has neither infinity nor NaN, and few readers take numbers of more than 64 bits.
        limits["value"] = given if -(2**63) <= given < 2**63 else str(given)[:_MAX_SHOWN_DIGITS]
    elif isinstance(given, (str, list)) and not limits.keys().isdisjoint(("min_length", "max_length")):
        limits["value"] = len(given)
    return limits


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(request, NotFound(f"No route {request.method} {request.url.path}."))
    if error.status_code == 405:
        return problem_response(
            request, MethodProblem(f"{request.method} is not allowed on {request.url.path}.")
        )
    if error.status_code < 500:
        return problem_response(request, Invalid(str(error.detail)))
    return problem_response(request, InternalError())


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    socket.herror,
)
_UNREACHABLE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
_BUSY_CLASSES = ("53", "57")
"""SQLSTATE: out of resources (connections, memory, disk); an operator, a shutdown or a timeout intervened."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 8:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _is_of_socket(error: OSError) -> bool:
    """Whether an error without a class of its own comes from a connection rather than from a file."""
    if error.errno in _UNREACHABLE:
        return True
    # asyncio's error when a name has several addresses and each failed in its own way
    return error.errno is None and str(error).startswith("Multiple exceptions: ")


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, _LOST) or (isinstance(error, OSError) and _is_of_socket(error)):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def database_is_away(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, says that Postgres cannot be reached."""
    return any(_is_lost(one) for one in _chain(error))


def database_is_busy(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, says that Postgres or its pool can take no more now."""
    return any(
        isinstance(one, PoolTimeout) or str(getattr(one, "sqlstate", "")).startswith(_BUSY_CLASSES)
        for one in _chain(error)
    )


async def _on_crash(request: Request, error: Exception) -> Response:
    if database_is_busy(error):
        log.warning("database_busy", path=request.url.path, error=type(error).__name__)
        return problem_response(
            request, Unavailable("The database cannot answer this right now.", retry_after_s=5)
        )
    if database_is_away(error):
        log.warning("database_away", path=request.url.path, error=type(error).__name__)
        return problem_response(request, Unavailable("The database cannot be reached.", retry_after_s=2))
    log.exception("unhandled", path=request.url.path, exc_info=error)
    return problem_response(request, InternalError())


def install_handlers(app: FastAPI, docs_url: str) -> None:
    """Route every error of the app through the renderer."""
    app.state.docs_url = docs_url
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(DBAPIError, _on_crash)
    app.add_exception_handler(PoolTimeout, _on_crash)
    app.add_exception_handler(OSError, _on_crash)
    app.add_exception_handler(Exception, _on_crash)


def problem_responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: one entry per status, naming the documented types."""
    answers: dict[int | str, dict[str, Any]] = {}
    for problem in problems:
        entry = answers.setdefault(
            problem.status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
            },
        )
        entry["description"] = "; ".join(
            filter(None, [entry["description"], f"{problem.title} (`{problem.slug}`)"])
        )
    return answers
