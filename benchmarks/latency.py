"""How long answers take, one after the other on one connection."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Wall seconds of many answers."""

    count: int
    p50_s: float
    p99_s: float
    mean_bytes: float


class BadAnswer(RuntimeError):
    """The server answered with another status than 200."""


class KeepAlive:
    """A client that keeps one connection, as a reader's session does."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def get(self, path: str) -> bytes:
        """The body of an answer.

        Raises:
            BadAnswer: it is no 200.
        """
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BadAnswer(f"GET {path}: {response.status} {body[:300]!r}")
        return body

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
