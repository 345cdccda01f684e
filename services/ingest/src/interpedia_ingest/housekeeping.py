"""What the API process tidies up now and then."""

from __future__ import annotations

import asyncio

import structlog

from interpedia_ingest.build.sweep import Sweeper
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads.service import UploadService
from interpedia_shared.db.session import Database
from interpedia_shared.idempotency import forget_old_keys

log = structlog.get_logger(__name__)
_HOURLY_S = 3_600.0


class Housekeeping:
    """Looks for ended builds every few seconds, and for old uploads and keys at the start and every hour."""

    def __init__(
        self, database: Database, uploads: UploadService, sweeper: Sweeper, settings: IngestSettings
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._sweeper = sweeper
        self._interval_s = settings.sweep_interval_s

    async def run_for_ever(self) -> None:
        """Tidy up until cancelled; a database that is away is tried again later."""
        since_hourly = _HOURLY_S
        while True:
            try:
                if since_hourly >= _HOURLY_S:
                    await self.run_hourly()
                    since_hourly = 0.0
                await self._sweeper.sweep()
            except Exception as error:  # noqa: BLE001  (a background loop of the process: the next round tries again)
                log.warning("housekeeping_failed", error=type(error).__name__)
            await asyncio.sleep(self._interval_s)
            since_hourly += self._interval_s

    async def run_hourly(self) -> None:
        """Drop stale uploads and the answers to old requests."""
        await self._uploads.sweep()
        async with self._database.write() as session:
            await forget_old_keys(session)
