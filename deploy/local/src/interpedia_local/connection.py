"""Short SQL conversations with the local server, from code that may or may not already run an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, Protocol, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from interpedia_local.ports import LOOPBACK

T = TypeVar("T")

CONNECT_SECONDS = 5.0


class Conversation(Protocol):
    """What we use of an asyncpg connection; the library ships no types."""

    async def execute(self, query: str) -> str:
        """Runs a statement."""
        ...

    async def fetch(self, query: str) -> list[dict[str, Any]]:
        """Runs a query."""
        ...

    async def close(self) -> None:
        """Hangs up."""
        ...


class Answer(Enum):
    """What a server says when somebody connects."""

    READY = "ready"
    NOT_YET = "not yet"
    WRONG_PASSWORD = "wrong password"  # noqa: S105  (an answer, not a password)


def ask(url: str) -> Answer:
    """Connects to `url` once and hangs up. Understands SQLAlchemy's `postgresql+asyncpg://` too."""
    return _run(_ask(f"postgresql://{url.split('://', 1)[-1]}"))


def execute(url: str, statements: Sequence[str]) -> None:
    """Runs each of `statements` by itself, outside a transaction."""
    _run(_execute(url, statements))


def databases(url: str) -> set[str]:
    """The names of the server's databases."""
    return _run(_databases(url))


async def _ask(url: str) -> Answer:
    try:
        connection = await _connect(url)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return Answer.WRONG_PASSWORD
    except asyncpg.TooManyConnectionsError:
        return Answer.READY  # busy is alive
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return Answer.NOT_YET
    await connection.close()
    return Answer.READY


async def _execute(url: str, statements: Sequence[str]) -> None:
    connection = await _connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _databases(url: str) -> set[str]:
    connection = await _connect(url)
    try:
        rows = await connection.fetch("SELECT datname::text AS name FROM pg_database")
    finally:
        await connection.close()
    return {str(row["name"]) for row in rows}


async def _connect(url: str) -> Conversation:
    connect = cast(Any, asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]
    # Our own server has no TLS, and PGSSLMODE of the environment is meant for others.
    tls = {"ssl": False} if f"@{LOOPBACK}:" in url else {}
    return cast(Conversation, await connect(url, timeout=CONNECT_SECONDS, **tls))


def _run(conversation: Coroutine[None, None, T]) -> T:
    """Runs it on a thread of its own, because the caller's thread may be inside an event loop."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, conversation).result()
