"""One request to the API: key, retries, idempotency, and problems turned into errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from interpedia.errors import InterpediaError, ServerUnreachable, error_of, retry_after

T = TypeVar("T")
Parameters = Mapping[str, str | int | float | bool | None]

USER_AGENT = "interpedia-python/0.1"
BUSY = (429, 503)
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a request is repeated when the server is busy or the connection breaks."""

    attempts: int = 5
    first_pause: float = 0.5
    """Seconds before the first repetition when the server does not say; doubles each time."""
    longest_pause: float = 60.0
    """A server that wants more patience than this, in seconds, gets its error raised instead."""


@dataclass(frozen=True)
class Request:
    """What to ask for."""

    method: str
    path: str
    parameters: Parameters = field(default_factory=dict[str, str | int | float | bool | None])
    json: object = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    patience: float = READ_SECONDS
    """Longest silence of the server, in seconds."""


class Transport:
    """Sends requests to one server."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"user-agent": USER_AGENT, "accept": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self.base_url = base_url.rstrip("/")
        self.retry = retry or RetryPolicy()
        self.sleep = sleep
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=headers,
            timeout=_timeout(READ_SECONDS),
            follow_redirects=False,  # the key must not travel to another address
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def send(self, request: Request) -> httpx.Response:
        """Sends `request`, again when the server is busy (429, 503) or the connection breaks.

        Every POST carries one Idempotency-Key for all its repetitions, so that it takes effect once.

        Raises:
            ServerUnreachable: no connection after all attempts.
            ApiError: the server refused.
        """
        headers = dict(request.headers)
        if request.method == "POST":
            headers.setdefault("idempotency-key", str(uuid.uuid4()))
        pause = self.retry.first_pause
        for attempt in range(1, self.retry.attempts + 1):
            last = attempt == self.retry.attempts
            try:
                response = self._once(request, headers)
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(error) from error
                wanted = None
            else:
                if response.status_code < 400:
                    return response
                wanted = retry_after(response)
                if last or response.status_code not in BUSY or (wanted or 0.0) > self.retry.longest_pause:
                    raise error_of(response)
            self.sleep(pause if wanted is None else wanted)
            pause = min(pause * 2, self.retry.longest_pause)
        raise AssertionError("the last attempt returns or raises")

    def read(self, request: Request, shape: type[T]) -> T:
        """Sends `request` and reads the answer as `shape`.

        Raises:
            InterpediaError: as `send`, or the answer has another shape.
        """
        response = self.send(request)
        try:
            return TypeAdapter(shape).validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise InterpediaError(
                f"The server's answer to {request.method} {request.path} is not understood ({place}:"
                f" {first['msg']}); is the server of another version?"
            ) from error

    @contextmanager
    def stream_lines(self, request: Request) -> Generator[Generator[str]]:
        """The lines of an event stream; leaving the block hangs up.

        Raises:
            ServerUnreachable: the connection cannot be made, or breaks.
            ApiError: the server refused.
        """
        headers = {"accept": "text/event-stream", **request.headers}
        try:
            with self._http.stream(
                request.method,
                request.path,
                json=request.json,
                headers=headers,
                timeout=_timeout(request.patience),
            ) as response:
                if response.status_code >= 400:
                    response.read()
                    raise error_of(response)
                yield (line for line in response.iter_lines())
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _once(self, request: Request, headers: dict[str, str]) -> httpx.Response:
        parameters: dict[str, Any] = {
            name: value for name, value in request.parameters.items() if value is not None
        }
        return self._http.request(
            request.method,
            request.path,
            params=parameters,
            json=request.json,
            content=request.content,
            headers=headers,
            timeout=_timeout(request.patience),
        )

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        if isinstance(error, httpx.ConnectError):
            return ServerUnreachable(f"Nobody answers at {self.base_url}: is the server running?")
        if isinstance(error, httpx.TimeoutException):
            return ServerUnreachable(f"The server at {self.base_url} took too long to answer.")
        return ServerUnreachable(f"The connection to {self.base_url} broke off.")


def _timeout(patience: float) -> httpx.Timeout:
    return httpx.Timeout(patience, connect=CONNECT_SECONDS)
