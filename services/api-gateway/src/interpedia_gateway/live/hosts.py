"""Which inference host gets a request: the registry as it was a second ago, and what is running already."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import func, select

from interpedia_shared.db.models import InferenceHost
from interpedia_shared.db.session import Database, ReadSession
from interpedia_shared.problems import HostNotReady

FORGOTTEN_AFTER = timedelta(hours=1)
"""A host that was silent for so long is not even mentioned any more."""
PUT_OFF_S = 5.0
"""A host that refused a connection comes last for so long, whatever the registry says."""
RETRY_SOON_S, RETRY_LATER_S = 5, 30
_COMING = frozenset({"waiting", "loading", "ready"})


@dataclass(frozen=True, slots=True)
class Host:
    """One row of the registry."""

    id: str
    url: str
    model: str
    state: str
    queue_depth: int
    capabilities: Mapping[str, Any]
    heard_at: float  # by this process's monotonic clock

    @property
    def saes_loaded(self) -> frozenset[str]:
        """SAEs that need not be loaded first."""
        return frozenset(map(str, _items(self.capabilities.get("saes_loaded"))))

    def shown_state(self, silent_s: float) -> str:
        """The state, or `silent` for a host whose heartbeat stopped."""
        return self.state if time.monotonic() - self.heard_at < silent_s else "silent"


class Hosts:
    """The registry, read at most once per `kept_s`, and the requests of this process by host."""

    def __init__(self, database: Database, *, kept_s: float, silent_s: float) -> None:
        self._database = database
        self._kept_s = kept_s
        self._silent_s = silent_s
        self._rows: list[Host] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._running: Counter[str] = Counter()
        self._put_off_until: dict[str, float] = {}

    async def known(self) -> list[tuple[Host, str]]:
        """All hosts heard of lately, with their states."""
        return [(host, host.shown_state(self._silent_s)) for host in await self._fresh()]

    async def candidates(self, model: str | None, saes: Iterable[str] = ()) -> list[Host]:
        """Hosts that can take a request, best first: the least busy, then those that hold its SAEs.

        Args:
            model: What they must serve; None for any.
            saes: What they had better have loaded.

        Raises:
            HostNotReady: there is none; names the model and the states of its hosts.
        """
        wanted = frozenset(saes)
        hosts = [(host, state) for host, state in await self.known() if model in (None, host.model)]
        ready = [host for host, state in hosts if state == "ready"]
        if not ready:
            raise absent(model, [state for _, state in hosts])
        return sorted(ready, key=lambda host: self._burden(host, wanted))

    def begin(self, host: Host) -> None:
        """Count a request that is sent to a host."""
        self._running[host.id] += 1

    def end(self, host: Host) -> None:
        """Count it off."""
        self._running[host.id] -= 1
        if self._running[host.id] <= 0:
            del self._running[host.id]

    def put_off(self, host: Host) -> None:
        """Prefer others for a while: it could not be reached."""
        self._put_off_until[host.id] = time.monotonic() + PUT_OFF_S

    def running(self) -> Mapping[str, int]:
        """Requests under way by host id."""
        return dict(self._running)

    def _burden(self, host: Host, saes: frozenset[str]) -> tuple[bool, int, int, str]:
        is_put_off = self._put_off_until.get(host.id, 0.0) > time.monotonic()
        load = host.queue_depth + self._running[host.id]
        return is_put_off, load, -len(saes & host.saes_loaded), host.id

    async def _fresh(self) -> list[Host]:
        if self._is_stale():
            async with self._reading:  # one reads, the others wait for it
                if self._is_stale():
                    async with self._database.read() as session:
                        self._rows = await _read(session)
                    self._read_at = time.monotonic()
                    self._forget()
        return self._rows

    def _is_stale(self) -> bool:
        return time.monotonic() - self._read_at >= self._kept_s

    def _forget(self) -> None:
        now = time.monotonic()
        self._put_off_until = {host: until for host, until in self._put_off_until.items() if until > now}


def absent(model: str | None, states: Iterable[str]) -> HostNotReady:
    """No host can take a request now."""
    counted = Counter(states)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counted.items())) or "none is running"
    what = "any model" if model is None else f"model '{model}'"
    return HostNotReady(
        f"No inference host is ready for {what} (hosts: {told}).",
        extensions={"model": model, "hosts": dict(sorted(counted.items()))},
        retry_after_s=RETRY_SOON_S if _COMING & counted.keys() else RETRY_LATER_S,
    )


async def _read(session: ReadSession) -> list[Host]:
    age = func.extract("epoch", func.clock_timestamp() - InferenceHost.heartbeat_at)
    statement = select(
        InferenceHost.id,
        InferenceHost.url,
        InferenceHost.model_id,
        InferenceHost.state,
        InferenceHost.queue_depth,
        InferenceHost.capabilities,
        age,
    ).where(InferenceHost.heartbeat_at > func.now() - FORGOTTEN_AFTER)
    now = time.monotonic()
    return [
        Host(id_, url.rstrip("/"), model, state, depth, capabilities, now - float(seconds))
        for id_, url, model, state, depth, capabilities, seconds in await session.execute(statement)
    ]


def _items(value: object) -> list[object]:
    return cast(list[object], value) if isinstance(value, list) else []
