"""Engine and sessions. The only module that commits.

A read session and a write session are different types, so that the type checker tells them apart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NewType

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from interpedia_shared.settings import DatabaseSettings

ReadSession = NewType("ReadSession", AsyncSession)
WriteSession = NewType("WriteSession", AsyncSession)


class Database:
    """One process's way to Postgres: a connection pool and the two kinds of session."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.engine: AsyncEngine = create_async_engine(
            settings.sqlalchemy_url(),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_overflow,
            pool_pre_ping=True,
            connect_args={"server_settings": {"statement_timeout": str(settings.statement_timeout_ms)}},
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[ReadSession]:
        """A session in a read-only transaction: writing with it is refused by Postgres as well."""
        async with self._sessions() as session:
            await session.connection(execution_options={"postgresql_readonly": True})
            yield ReadSession(session)

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[WriteSession]:
        """A session whose transaction commits when the block ends, and rolls back when it raises."""
        async with self._sessions() as session, session.begin():
            yield WriteSession(session)

    async def dispose(self) -> None:
        """Close all pooled connections."""
        await self.engine.dispose()
