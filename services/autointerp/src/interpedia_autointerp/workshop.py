"""What the tasks of a worker share."""

from __future__ import annotations

from dataclasses import dataclass

from interpedia_autointerp.frozen import TaskShelf
from interpedia_autointerp.live import LiveBackend
from interpedia_autointerp.llm import Caller, LLMSettings
from interpedia_autointerp.material import Embedder
from interpedia_autointerp.settings import AutointerpSettings
from interpedia_shared.db.session import Database


@dataclass(frozen=True)
class Workshop:
    """One process's database, LLM caller, live model, text encoder and frozen tasks."""

    settings: AutointerpSettings
    database: Database
    caller: Caller
    live: LiveBackend
    embedder: Embedder | None
    shelf: TaskShelf

    @classmethod
    def open(
        cls,
        settings: AutointerpSettings,
        database: Database,
        llm: LLMSettings,
        embedder: Embedder | None = None,
    ) -> Workshop:
        """Put it together; nothing is connected yet."""
        live = LiveBackend(settings)
        shelf = TaskShelf(database, live, embedder, pool_contexts=settings.pool_contexts)
        return cls(settings, database, Caller(database, llm), live, embedder, shelf)

    async def aclose(self) -> None:
        """Store what is on its way, and close all connections but the database's."""
        await self.caller.aclose()
        await self.live.aclose()
