"""COPY inside the transaction of a write session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import text

from interpedia_shared.db.session import WriteSession

LONG_STATEMENT_S = 600


async def allow_long_statements(session: WriteSession) -> None:
    """Let this transaction's statements run for minutes: a worker's, which nobody waits for at a browser."""
    await session.execute(text(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_S}s'"))


async def copy_rows(
    session: WriteSession, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Add rows by COPY; they are seen when the session commits."""
    connection = await session.connection()
    # SQLAlchemy begins the transaction with its first statement: COPY past it must not be the first.
    await connection.execute(text("SELECT 1"))
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    await driver.copy_records_to_table(table, records=rows, columns=columns, timeout=LONG_STATEMENT_S)
