"""What loading takes, on both sides of the connection."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg


@dataclass(frozen=True)
class Load:
    """What loading took and what is stored. CPU seconds are the client's and its backend's together."""

    n_features: int
    pack_s: float
    copy_s: float
    cpu_s: float
    bytes: int

    @property
    def seconds(self) -> float:
        """Packing and COPY, wall."""
        return self.pack_s + self.copy_s


@dataclass
class Meter:
    """Adds up wall and CPU seconds of packing and COPY."""

    backend: int
    wall: dict[str, float] = field(default_factory=lambda: {"pack": 0.0, "copy": 0.0})
    client_cpu_s: float = 0.0
    _backend_began_s: float = 0.0

    @classmethod
    async def of(cls, connection: asyncpg.Connection) -> Meter:
        """A meter for one connection; the backend must live on this machine."""
        backend: Any = await connection.fetchval("SELECT pg_backend_pid()")
        return cls(backend, _backend_began_s=cpu_seconds(backend))

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Measure one stretch of `pack` or `copy`."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - wall
            self.client_cpu_s += time.process_time() - cpu

    def load(self, n_features: int, size: int) -> Load:
        """The sums, with the size that the caller found."""
        backend = cpu_seconds(self.backend) - self._backend_began_s
        return Load(n_features, self.wall["pack"], self.wall["copy"], self.client_cpu_s + backend, size)


def cpu_seconds(process: int) -> float:
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    # utime and stime: fields 14 and 15 of proc(5), counted from behind the process's name
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
