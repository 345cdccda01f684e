"""Pass a request on to another service and its answer back, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import httpx
import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from interpedia_shared.auth import presented_key
from interpedia_shared.problems import Unavailable

log = structlog.get_logger(__name__)

_PASSED_BACK = ("content-type", "content-length", "retry-after", "www-authenticate", "location", "etag")
_CLIENT_CLOSED = 499


@dataclass(frozen=True, slots=True)
class Target:
    """A service behind the gateway: its name, what it is for, and the process's connections to it."""

    name: str
    purpose: str
    client: httpx.AsyncClient


class Forwarder:
    """Sends one caller's request on, with the caller's key."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target

    async def get(self, path: str) -> Response:
        """Ask for something."""
        return await self._send("GET", path, None, {})

    async def post(self, path: str, body: BaseModel | None = None, *, once: str | None = None) -> Response:
        """Send a checked body; fields that the caller left out stay left out."""
        headers = {} if once is None else {"idempotency-key": once}
        if body is None:
            return await self._send("POST", path, b"", headers)
        content = body.model_dump_json(exclude_unset=True).encode()
        return await self._send("POST", path, content, {**headers, "content-type": "application/json"})

    async def put_stream(self, path: str, *, sha256: str | None) -> Response:
        """Send the caller's bytes on as they arrive; they are never held whole."""
        headers = {"content-type": "application/octet-stream"}
        if length := self._request.headers.get("content-length"):
            headers["content-length"] = length
        if sha256 is not None:
            headers["x-content-sha256"] = sha256
        return await self._send("PUT", path, self._request.stream(), headers)

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes | AsyncGenerator[bytes] | None,
        headers: Mapping[str, str],
    ) -> Response:
        client = self._target.client
        outgoing = client.build_request(
            method, path, content=content, headers={**self._own_headers(), **headers}
        )
        try:
            answer = await client.send(outgoing, stream=True)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED)
        except httpx.TransportError as error:
            log.warning("service_away", service=self._target.name, path=path, error=type(error).__name__)
            raise Unavailable(
                f"{self._target.purpose} is not available right now: the {self._target.name} service cannot "
                "be reached.",
                retry_after_s=5,
            ) from error
        kept = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return StreamingResponse(_body(answer), answer.status_code, kept)

    def _own_headers(self) -> dict[str, str]:
        return {
            **self._key_header(),
            "x-request-id": self._request.state.request_id,
            "accept-encoding": "identity",
        }

    def _key_header(self) -> dict[str, str]:
        """The key that was checked, and no other: nobody looked at a second one, not even at its bytes."""
        key = presented_key(self._request)
        if key is None:
            return {}
        by_bearer = "authorization" in self._request.headers
        return {"authorization": f"Bearer {key}"} if by_bearer else {"x-api-key": key}


async def _body(answer: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def client_of(url: str, timeout_s: float) -> httpx.AsyncClient:
    """The process's connections to a service."""
    timeout = httpx.Timeout(timeout_s, connect=3.0, pool=10.0)
    return httpx.AsyncClient(base_url=url, timeout=timeout, follow_redirects=False, trust_env=False)
