"""Telling the registry, every few seconds, that this host is there and what it can do."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from interpedia_inference.hosts.repository import forget_host, write_heartbeat
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.contracts.live.capabilities import Capabilities
from interpedia_shared.db.session import Database

log = structlog.get_logger(__name__)


class Heartbeat:
    """Keeps this process's row in `inference_host` fresh while it runs.

    Args:
        database: Where the registry is.
        settings: Address, model, how often.
        describe: What the host says of itself now.
    """

    def __init__(
        self, database: Database, settings: InferenceSettings, describe: Callable[[], Capabilities]
    ) -> None:
        self._database = database
        self._settings = settings
        self._describe = describe
        self.host_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def run(self) -> None:
        """Write until cancelled; a database that is away is tried again. Without a model there is no row."""
        while self._settings.model is not None:
            try:
                await self._write(self._settings.model)
            except (SQLAlchemyError, OSError) as error:
                log.warning("heartbeat_failed", error=type(error).__name__)
            await asyncio.sleep(self._settings.heartbeat_s)

    async def leave(self) -> None:
        """Remove the row, so that no request is sent here any more."""
        try:
            async with self._database.write() as session:
                await forget_host(session, self.host_id)
        except (SQLAlchemyError, OSError) as error:
            log.warning("leaving_failed", error=type(error).__name__)

    async def _write(self, model: str) -> None:
        url = self._settings.public_url()
        async with self._database.write() as session:
            await write_heartbeat(session, self.host_id, url=url, model=model, capabilities=self._describe())
