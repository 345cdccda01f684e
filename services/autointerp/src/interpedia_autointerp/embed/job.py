"""The job `embed`: a vector for every explanation that has none, or one of another model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from interpedia_autointerp.embed.repository import Wanted, count_left, next_texts, store_vectors
from interpedia_shared.db.base import JSON
from interpedia_shared.embeddings import (
    Embedder,
    EmbeddingUnavailable,
    load_embedder,
    load_embedding_settings,
)
from interpedia_shared.jobs import TaskContext

log = structlog.get_logger(__name__)

KIND = "embed"
BATCH = 256


def _load() -> Embedder:
    return load_embedder(load_embedding_settings())


class EmbedExplanations:
    """The handler of tasks of kind `embed`.

    Their parameters: none for all explanations, `first` and `last` for a range of ids, `run_ids` for those of
    runs. Vectors are written batch by batch and never twice, so a task that is run again goes on where it
    was. Without an embedder the task ends well and says so: explanations are found by their words all the
    same, and a later job embeds them.
    """

    def __init__(self, load: Callable[[], Embedder] = _load) -> None:
        self._load = load
        self._embedder: Embedder | None = None

    async def __call__(self, context: TaskContext) -> JSON | None:
        """Embed what the task names.

        Raises:
            TaskCancelled: the work is no longer wanted.
        """
        try:
            embedder = await self._loaded()
            count = await self._embed(context, embedder)
        except EmbeddingUnavailable as error:
            log.warning("not_embedded", reason=error.detail)
            return {"embedding": f"unavailable: {error.detail}"}
        return {"embedding": embedder.model, "embedded": count}

    async def _loaded(self) -> Embedder:
        if self._embedder is None:
            self._embedder = await asyncio.to_thread(self._load)
        return self._embedder

    async def _embed(self, context: TaskContext, embedder: Embedder) -> int:
        wanted, after, done = Wanted.of(context.params), 0, 0
        async with context.database.read() as session:
            total = await count_left(session, wanted, embedder.model)
        while True:
            context.check()
            async with context.database.read() as session:
                rows = await next_texts(session, wanted, embedder.model, after=after, limit=BATCH)
            if not rows:
                return done
            vectors = await asyncio.to_thread(embedder.embed, [text for _, text in rows])
            async with context.database.write() as session:
                await store_vectors(session, rows, vectors, embedder.model)
            after, done = rows[-1][0], done + len(rows)
            context.report(min(context.weight, context.weight * done // max(1, total)))
