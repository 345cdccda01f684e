"""Calls that wait until others of the same budget have cost less than was reserved for them."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager

LOOK_AGAIN_S = 1.0
# Looks at a budget while nothing of this process is under way: other processes may be at work on the job,
# or have died with their reservations.
IDLE_LOOKS = 10


class BudgetWaits:
    """Who waits for room in which budget, in this process."""

    def __init__(self) -> None:
        self._under_way: Counter[uuid.UUID] = Counter()
        self._waiting: dict[uuid.UUID, deque[asyncio.Future[None]]] = defaultdict(deque)

    @contextmanager
    def under_way(self, budget: uuid.UUID | None) -> Generator[None]:
        """A call that holds a reservation; when it ends, two that wait may try again."""
        if budget is None:
            yield
            return
        self._under_way[budget] += 1
        try:
            yield
        finally:
            self._under_way[budget] -= 1
            self._wake(budget, 2)

    def _wake(self, budget: uuid.UUID, count: int) -> None:
        waiting = self._waiting[budget]
        while waiting and (count or waiting[0].done()):
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1
        if not waiting and not self._under_way[budget]:
            del self._waiting[budget], self._under_way[budget]

    async def for_room(self, budget: uuid.UUID) -> bool:
        """Wait until a call of this process has ended; false after a while in which none was under way."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[budget].append(future)
        try:
            while not future.done():
                await asyncio.wait([future], timeout=LOOK_AGAIN_S)
                if not self._under_way[budget]:
                    break
            return future.done()
        finally:
            future.cancel()
            self._wake(budget, 0)
