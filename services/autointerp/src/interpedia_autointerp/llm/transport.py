"""One HTTP request to an endpoint. The only place that knows the key."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from interpedia_autointerp.llm.request import clean
from interpedia_autointerp.llm.settings import EndpointSettings

MAX_ANSWER_BYTES = 16 * 1024 * 1024
EXCERPT = 300
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer. `body` is its JSON or None; `excerpt` its first characters, for people."""

    status: int
    headers: Mapping[str, str]
    body: Any
    excerpt: str
    seconds: float


class TransportFailed(Exception):
    """No HTTP answer. `reason`: unreachable (nothing was sent); timeout, broken (it may have been billed)."""

    def __init__(self, reason: Literal["unreachable", "timeout", "broken"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Transport:
    """Connections to one endpoint. Follows no redirect: the key goes to its own host only.

    Every call under way has a connection of its own, taken from a stack. One pool of httpx over all of them
    looks at each of its connections for each request: at 64 that took four fifths of a call's CPU time.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._secret = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        self._spellings = _spellings(self._secret)
        self._base_url = settings.base_url
        self._timeout_s = settings.timeout_s
        self._urls: dict[str, httpx.URL] = {}
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._verify = httpx.create_ssl_context()
        self._proxy = _proxy_for(settings.base_url)
        connect_s = min(CONNECT_S, settings.timeout_s)
        self._extensions = {
            "timeout": {
                "connect": connect_s,
                "read": settings.timeout_s,
                "write": settings.timeout_s,
                "pool": None,
            }
        }

    async def post(self, path: str, body: Mapping[str, Any]) -> Answered:
        """Send a body of JSON.

        Raises:
            TransportFailed: no connection, no answer in time, or one that breaks off.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, raw = await self._exchanged(self._request(path, content))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise TransportFailed("unreachable", f"no connection ({type(error).__name__})") from None
        except (httpx.TimeoutException, TimeoutError):
            raise TransportFailed("timeout", f"no answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise TransportFailed("broken", f"the answer broke off ({type(error).__name__})") from None
        return self._answered(status, headers, raw, time.monotonic() - started)

    def _request(self, path: str, content: bytes) -> httpx.Request:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(f"{self._base_url}/{path}")
        headers = [
            ("host", url.netloc.decode("ascii")),
            ("content-type", "application/json"),
            ("content-length", str(len(content))),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
        ]
        if self._secret:
            headers.append(("authorization", f"Bearer {self._secret}"))
        return httpx.Request("POST", url, headers=headers, content=content, extensions=self._extensions)

    async def _exchanged(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        """Send on an idle connection, or a new one; it is kept unless something went wrong."""
        connection = self._idle.pop() if self._idle else self._new_connection()
        try:
            response = await connection.handle_async_request(request)
            try:
                raw = await _read(response)
            finally:
                await response.aclose()
        except BaseException:
            await connection.aclose()
            raise
        self._idle.append(connection)
        return response.status_code, response.headers, raw

    def _new_connection(self) -> httpx.AsyncHTTPTransport:
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=one, proxy=self._proxy, trust_env=False)

    async def aclose(self) -> None:
        """Close all connections."""
        while self._idle:
            await self._idle.pop().aclose()

    def _answered(self, status: int, headers: httpx.Headers, raw: bytes, seconds: float) -> Answered:
        text = raw.decode(errors="replace")
        if self._secret and ("\\" in text or self._secret in text):
            # some endpoints repeat a wrong key in their error
            text = self._spellings.sub("[key]", text)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        return Answered(status, headers, body, clean(text[:EXCERPT]), seconds)


def _spellings(secret: str) -> re.Pattern[str]:
    """The key as it is, and with any of its characters escaped as JSON may, also JSON inside JSON."""
    parts = [rf"(?:\\*{re.escape(char)}|\\+u(?i:{ord(char):04x}))" for char in secret]
    return re.compile("".join(parts))


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts = urlsplit(base_url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


async def _read(response: httpx.Response) -> bytes:
    """The whole body, if it is not endless.

    Raises:
        httpx.DecodingError: it is over the limit.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise httpx.DecodingError(f"the answer is over {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
