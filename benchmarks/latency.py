"""How long answers take, one after the other on one connection."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Latency:
    """Wall seconds of many answers."""

    count: int
    p50_s: float
    p99_s: float
    mean_bytes: float


class BadAnswer(RuntimeError):
    """The server answered with another status than 200."""


@dataclass(frozen=True)
class Answer:
    """What came back, whatever the status."""

    status: int
    body: bytes
    first_byte_s: float
    mark_s: float
    """Until something that was waited for had come; until the end if it never did."""


class KeepAlive:
    """A client that keeps one connection, as a reader's session does; after a long pause it opens another."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        self._last_used = 0.0

    def get(self, path: str) -> bytes:
        """The body of an answer.

        Raises:
            BadAnswer: it is no 200.
        """
        self._refresh()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BadAnswer(f"GET {path}: {response.status} {body[:300]!r}")
        return body

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer to a request in JSON.

        Raises:
            BadAnswer: it is no 200.
        """
        answer = self.send(path, body)
        if answer.status != 200:
            raise BadAnswer(f"POST {path}: {answer.status} {answer.body[:300]!r}")
        return answer.body

    def send(self, path: str, body: bytes, *, mark: bytes = b"") -> Answer:
        """Any answer to a request in JSON, with the times until its first byte and until `mark`."""
        self._refresh()
        began = time.perf_counter()
        self._connection.request("POST", path, body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        said = response.read(1)
        first_byte_s = time.perf_counter() - began
        while mark not in said and (more := response.read1()):
            said += more
        mark_s = time.perf_counter() - began
        return Answer(response.status, said + response.read(), first_byte_s, mark_s)

    def hang_up(self, path: str, body: bytes) -> None:
        """Close the connection at the first byte of the answer; the next request opens another."""
        self._refresh()
        self._connection.request("POST", path, body, {"content-type": "application/json"})
        self._connection.getresponse().read(1)
        self._connection.close()

    def _refresh(self) -> None:
        """Leave a connection that the server may be about to close: it waits for five seconds."""
        now = time.perf_counter()
        if now - self._last_used > IDLE_SECONDS:
            self._connection.close()
        self._last_used = now

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def summarise(times: Sequence[float], sizes: Sequence[int]) -> Latency:
    """Median, 99th percentile and mean size."""
    p50, p99 = np.percentile(times, [50, 99])
    return Latency(len(times), float(p50), float(p99), float(np.mean(sizes)))


def measure(ask: Callable[[str], bytes], paths: Sequence[str], *, warm_up: int) -> Latency:
    """Ask for every path in turn; the first `warm_up` are asked for once before."""
    for path in paths[:warm_up]:
        ask(path)
    times: list[float] = []
    sizes: list[int] = []
    for path in paths:
        began = time.perf_counter()
        body = ask(path)
        times.append(time.perf_counter() - began)
        sizes.append(len(body))
    return summarise(times, sizes)
