"""Word of new queue entries. Only a hint: workers look for work now and then anyhow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg

from interpedia_shared.jobs.connection import DATABASE_ERRORS, Backoff, is_passing

CONNECT_TIMEOUT_S = 5
Connection = Any  # asyncpg's classes are generic in ways its documentation does not show


async def listen(url: str, channel: str, on_insert: Callable[[], None], backoff: Backoff) -> None:
    """Call `on_insert` when entries were added and after each connect, reconnecting until cancelled."""
    while True:
        try:
            connection: Connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
            try:
                backoff.reset()
                await _until_lost(connection, channel, on_insert)
            finally:
                connection.terminate()
        except DATABASE_ERRORS as error:
            if not is_passing(error):
                raise
        await backoff.sleep()


async def _until_lost(connection: Connection, channel: str, on_insert: Callable[[], None]) -> None:
    lost = asyncio.Event()

    def told(_connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        # Deletions are told as well; they bring no work.
        if json.loads(payload).get("operation") == "insert":
            on_insert()

    connection.add_termination_listener(lambda _connection: lost.set())
    await connection.add_listener(channel, told)
    on_insert()
    await lost.wait()
