"""Who asks a question right now: a lease on its row, renewed for as long as this process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from interpedia_autointerp.llm.ledger import Opened, renew_leases
from interpedia_shared.db.session import Database

log = structlog.get_logger(__name__)

# A process that is gone for so long is taken for dead, and its questions are asked by others.
LEASE_S = 20.0


class Leases:
    """Keeps the leases of all calls under way in this process."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self.lease_s = lease_s
        self._held: dict[int, int] = {}
        self._keeper: asyncio.Task[None] | None = None

    @contextmanager
    def held(self, opened: Opened) -> Generator[None]:
        """The row is ours meanwhile."""
        self._held[opened.call_id] = opened.attempt
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            del self._held[opened.call_id]

    async def _keep(self) -> None:
        try:
            while self._held:
                await asyncio.sleep(self.lease_s / 4)
                await self._renew()
        finally:
            self._keeper = None

    async def _renew(self) -> None:
        try:
            await renew_leases(self._database, list(self._held.items()), lease_s=self.lease_s)
        except (SQLAlchemyError, OSError) as error:
            log.warning("llm_leases_wait_for_database", count=len(self._held), error=type(error).__name__)

    async def aclose(self) -> None:
        """Stop; nothing may be held any more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
