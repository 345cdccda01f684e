"""The whole service, for the tests that order work of it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import structlog

from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.support.autointerp import running


@pytest.fixture(autouse=True, scope="session")
def _short_tracebacks() -> None:
    """As the services log them: with every local variable they take a minute to render."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, renderer])


@pytest.fixture
def service(database: Database, database_settings: DatabaseSettings):
    """Starts it: `async with service(has_llm=False) as it`."""

    @asynccontextmanager
    async def start(**more):
        async with running(database, database_settings, **more) as found:
            yield found

    return start
