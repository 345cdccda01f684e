"""Alembic's entry point: one advisory lock around every run, short lock timeouts, asyncpg."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from interpedia_shared.db import models  # noqa: F401  (registers the tables)
from interpedia_shared.db.base import Base

MIGRATION_LOCK = 7_202_611
"""Key of the advisory lock: two runs at once wait for one another instead of colliding."""

FOREIGN_PREFIXES = ("pgqueuer", "feature_p")
"""The queue library's tables and the partitions of `feature` are not declared as models."""


def _ours(obj: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    del obj, reflected, compare_to
    return not (kind == "table" and name is not None and name.startswith(FOREIGN_PREFIXES))


def _run(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    connection.commit()
    try:
        context.configure(
            connection=connection, target_metadata=Base.metadata, include_object=_ours, compare_type=True
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        connection.commit()


async def _main() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


asyncio.run(_main())
