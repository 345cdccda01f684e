"""The job `embed`: a vector for every explanation that has none, or one of another model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import structlog

from interpedia_autointerp.embed.repository import Wanted, count_left, next_texts, store_vectors
from interpedia_shared.db.base import JSON
from interpedia_shared.embeddings import (
    Embedder,
    EmbeddingRefused,
    EmbeddingUnavailable,
    embed_each,
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
    was; a text that the endpoint refuses stays without. Without an embedder the task ends well and says so:
    explanations are found by their words all the same, and a later job embeds them.
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
        wanted, after, seen, done = Wanted.of(context.params), 0, 0, 0
        async with context.database.read() as session:
            total = await count_left(session, wanted, embedder.model)
        while True:
            context.check()
            async with context.database.read() as session:
                rows = await next_texts(session, wanted, embedder.model, after=after, limit=BATCH)
            if not rows:
                return done
            found = await asyncio.to_thread(embed_each, embedder, [text for _, text in rows])
            kept = [
                (row, vector)
                for row, vector in zip(rows, found, strict=True)
                if not isinstance(vector, EmbeddingRefused)
            ]
            if kept:
                vectors = np.stack([vector for _, vector in kept])
                async with context.database.write() as session:
                    await store_vectors(session, [row for row, _ in kept], vectors, embedder.model)
            after, seen, done = rows[-1][0], seen + len(rows), done + len(kept)
            context.report(min(context.weight, context.weight * seen // max(1, total)))
