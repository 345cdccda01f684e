"""A host's event stream passed on event by event: only whole events, and a break is told as one."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import structlog
from fastapi import Request

from interpedia_gateway.live.calls import Opened, Relayed, broken
from interpedia_shared.problem_handlers import database_is_away, database_is_busy, problem_response
from interpedia_shared.problems import InternalError, Problem, Unavailable

log = structlog.get_logger(__name__)

Json = dict[str, Any]
Keep = Callable[[Json], Awaitable[Json]]
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
_END = re.compile(rb"\r?\n\r?\n")


class EventRelay:
    """One stream.

    Args:
        opened: The host's answer.
        request: Named in problems.
        keep: What turns the answer in the `done` event into the one to pass on; None passes it on as it is.
    """

    def __init__(self, opened: Opened, request: Request, keep: Keep | None = None) -> None:
        self._opened = opened
        self._request = request
        self._keep = keep

    def response(self) -> Relayed:
        """The stream as an answer; a refusal is passed on as it is."""
        if self._opened.response.status_code != 200:
            return Relayed(self._opened, self._opened.response.aiter_bytes())
        return Relayed(self._opened, self._events(), HEADERS)

    async def _events(self) -> AsyncGenerator[bytes]:
        try:
            async for event in _whole(self._opened.response):
                yield await self._passed(event)
        except httpx.TransportError as error:
            yield self._told(broken(self._opened.host, error))

    async def _passed(self, event: bytes) -> bytes:
        if self._keep is None or not _is_done(event):
            return event
        try:
            return _framed("done", orjson.dumps(await self._keep(orjson.loads(_data(event)))))
        except Problem as problem:
            return self._told(problem)
        except Exception as error:  # noqa: BLE001  (the status is sent: only the stream can still tell)
            return self._told(self._not_kept(error))

    def _not_kept(self, error: Exception) -> Problem:
        if database_is_away(error) or database_is_busy(error):
            return Unavailable("The run could not be kept: the database cannot be reached.")
        log.error("run_not_kept", path=self._request.url.path, exc_info=error)
        return InternalError()

    def _told(self, problem: Problem) -> bytes:
        return _framed("error", bytes(problem_response(self._request, problem).body))


async def _whole(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Events with the empty line that ends them, as they become complete."""
    rest = b""
    async for chunk in response.aiter_bytes():
        rest += chunk
        while end := _END.search(rest):
            yield rest[: end.end()]
            rest = rest[end.end() :]


def _is_done(event: bytes) -> bool:
    return any(
        line.removeprefix(b"event:").strip() == b"done"
        for line in event.splitlines()
        if line.startswith(b"event:")
    )


def _data(event: bytes) -> bytes:
    lines = [line.removeprefix(b"data:") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def _framed(kind: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
