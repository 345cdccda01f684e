"""What every request passes through: an id, a body limit, metrics."""

from __future__ import annotations

import re
import time
import uuid

import orjson
import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interpedia_shared.problem_handlers import MEDIA_TYPE
from interpedia_shared.problems import TooLarge

REQUESTS = Counter(
    "interpedia_requests_total", "Requests answered.", ["service", "method", "route", "status"]
)
SECONDS = Histogram("interpedia_request_seconds", "Time to the last byte.", ["service", "method", "route"])
_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


def method_label(method: str) -> str:
    """The method as metrics name it: any token is a method on the wire, and each label is kept for good."""
    return method if method in _METHODS else "other"


class RequestContext:
    """Give each request an id (the caller's `x-request-id` when it is sane), and count and time it."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 500
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = method_label(scope["method"])
            REQUESTS.labels(self.service, method, route, status).inc()
            SECONDS.labels(self.service, method, route).observe(time.perf_counter() - started)
            structlog.contextvars.unbind_contextvars("request_id")


class BodyLimit:
    """Refuse a body over the limit with 413, by its declared length or once that much has arrived."""

    def __init__(self, app: ASGIApp, max_bytes: int, docs_url: str) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.docs_url = docs_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request with its body watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await self._refuse(scope, send, self._declared_problem(int(declared)))
            return
        await self._watched(scope, receive, send)

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, is_started, is_refused = 0, False, False

        async def limited() -> Message:
            nonlocal taken
            if taken > self.max_bytes:  # said once already; what else arrives is not read
                return {"type": "http.disconnect"}
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_bytes:
                raise self._problem()
            return message

        async def answered(message: Message) -> None:
            # FastAPI reports any error of reading a body as one that cannot be parsed: replace that answer.
            nonlocal is_started, is_refused
            if is_refused:
                return
            if not is_started and taken > self.max_bytes:
                is_refused = True
                await self._refuse(scope, send, self._problem())
                return
            is_started = True
            await send(message)

        await self.app(scope, limited, answered)

    def _problem(self) -> TooLarge:
        return TooLarge(
            f"The body is over the limit of {self.max_bytes} bytes.",
            extensions={"limit_bytes": self.max_bytes},
        )

    def _declared_problem(self, declared: int) -> TooLarge:
        return TooLarge(
            f"The body has {declared} bytes, the limit is {self.max_bytes}.",
            extensions={"limit_bytes": self.max_bytes, "body_bytes": declared},
        )

    async def _refuse(self, scope: Scope, send: Send, problem: TooLarge) -> None:
        body = problem.body(self.docs_url)
        body["instance"] = scope["path"]
        body["request_id"] = scope.get("state", {}).get("request_id")
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})
