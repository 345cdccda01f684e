"""From the compute thread back to the event loop, one wake-up for many results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Delivery:
    """Collects calls on the compute thread and makes them on the loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: list[Callable[[], None]] = []

    def put(self, call: Callable[[], None]) -> None:
        """To be called on the loop at the next `flush`."""
        self._calls.append(call)

    def flush(self) -> None:
        """Send off what was put."""
        if not self._calls:
            return
        calls, self._calls = self._calls, []

        def make() -> None:
            for call in calls:
                call()

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(make)
