"""Inference hosts that do as they are told, on real sockets, and rows of the registry."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import delete, func
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from interpedia_shared.db.models import InferenceHost
from interpedia_shared.db.session import Database
from tests.support.serving import serving


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Its body."""
        return orjson.loads(self.body)


@dataclass
class ScriptedHost:
    """A host that answers what `reply` says."""

    reply: Callable[[Request], Response] = lambda _: JSONResponse({"ok": True})
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    delay_s: float = 0.0
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when a caller left before its answer, or its stream, was complete."""

    def reset(self) -> None:
        """As new, at the same address."""
        self.reply, self.delay_s = lambda _: JSONResponse({"ok": True}), 0.0
        self.seen.clear()
        self.hung_up.clear()

    @property
    def was_hung_up_on(self) -> bool:
        """Whether some caller left early."""
        return self.hung_up.is_set()

    async def _handle(self, request: Request) -> Response:
        self.seen.append(Seen(request.method, request.url.path, dict(request.headers), await request.body()))
        waited = 0.0
        while waited < self.delay_s:
            if await request.is_disconnected():
                self.hung_up.set()
                break
            await asyncio.sleep(0.02)
            waited += 0.02
        return self.reply(request)

    def stream(self, events: list[bytes], *, for_ever: bool = False, broken: bool = False) -> Response:
        """A stream of events; one that never ends, or that breaks off."""

        async def body() -> AsyncIterator[bytes]:
            try:
                for event in events:
                    yield event
                while for_ever:
                    yield b": alive\n\n"
                    await asyncio.sleep(0.02)
                if broken:
                    raise ConnectionAbortedError
            except asyncio.CancelledError:
                self.hung_up.set()
                raise

        return StreamingResponse(body(), media_type="text/event-stream")

    @contextmanager
    def running(self) -> Generator[ScriptedHost]:
        """Serve."""
        route = Route("/{path:path}", self._handle, methods=["GET", "POST"])
        with serving(Starlette(routes=[route])) as url:
            self.url = url
            yield self


def problem(status: int, slug: str, retry_after: int | None = None) -> Response:
    """A refusal as hosts give them."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {
        "type": f"https://interpedia.org/problems/{slug}",
        "title": slug,
        "status": status,
        "detail": slug,
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def dead_url() -> str:
    """An address at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def register_host(database: Database, host: str, url: str, *, age_s: float = 0, **fields: Any) -> None:
    """A row of the registry whose heartbeat is `age_s` old."""
    columns: dict[str, Any] = {"model_id": "tiny", "state": "ready", "capabilities": {}, "queue_depth": 0}
    heartbeat = func.now() - timedelta(seconds=age_s)
    async with database.write() as session:
        session.add(InferenceHost(id=host, url=url, heartbeat_at=heartbeat, **{**columns, **fields}))


async def forget_hosts(database: Database) -> None:
    """An empty registry."""
    async with database.write() as session:
        await session.execute(delete(InferenceHost))
