"""Many callers at once, each on a connection of its own, and a reader of the health check beside them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from benchmarks.inference.turns import Spent
from benchmarks.latency import KeepAlive
from benchmarks.services import Service

T = TypeVar("T")
Errand = Callable[[KeepAlive], T]
_PROBE_PAUSE_S = 0.1


class Crowd:
    """So many callers, whose connections stay open between two waves.

    Args:
        base: Of the service.
        count: Callers.
    """

    def __init__(self, base: str, count: int) -> None:
        self._clients = [KeepAlive(base) for _ in range(count)]
        self._pool = ThreadPoolExecutor(count)

    def wave(self, errands: Sequence[Errand[T]]) -> list[T]:
        """Run errands, each caller taking the next one as soon as it is done with one; results in order."""
        waiting = deque(enumerate(errands))
        results: dict[int, T] = {}

        def call(client: KeepAlive) -> None:
            while True:
                try:
                    number, errand = waiting.popleft()
                except IndexError:
                    return
                results[number] = errand(client)

        for future in [self._pool.submit(call, client) for client in self._clients]:
            future.result()
        return [results[number] for number in range(len(errands))]

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for client in self._clients:
            client.close()


@contextmanager
def crowd(base: str, count: int) -> Generator[Crowd]:
    """A crowd for the length of the block."""
    callers = Crowd(base, count)
    try:
        yield callers
    finally:
        callers.close()


def spent_by(running: Service, work: Callable[[], T]) -> tuple[T, Spent]:
    """What the work gave, how long it took, and what the service computed meanwhile."""
    cpu, wall = running.cpu_s(), time.perf_counter()
    result = work()
    wall_s = time.perf_counter() - wall
    return result, Spent(wall_s, running.cpu_s() - cpu)


@dataclass
class Pulse:
    """Answers of the health check, wall seconds."""

    times: list[float] = field(default_factory=list[float])

    def summary(self) -> dict[str, float]:
        """Count, median, 99th percentile and the longest."""
        p50, p99 = np.percentile(self.times, [50, 99])
        return {
            "count": len(self.times),
            "p50_s": float(p50),
            "p99_s": float(p99),
            "max_s": max(self.times),
        }


@contextmanager
def pulse(base: str, into: Pulse) -> Generator[None]:
    """Ask for `/livez` some ten times a second while the block runs."""
    is_over = threading.Event()
    client = KeepAlive(base)

    def ask() -> None:
        while not is_over.wait(_PROBE_PAUSE_S):
            began = time.perf_counter()
            client.get("/livez")
            into.times.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            is_over.set()
            asking.result()
            client.close()
