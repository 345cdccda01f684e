"""Vectors of queries: made off the event loop, several at a time, and remembered."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.embeddings import Embedder, EmbeddingRefused, EmbeddingUnavailable, embed_each

BATCH = 16
RETRY_S = 30.0
"""How long an embedder that could not be loaded is not tried again."""
PAUSE_S = 5.0
"""How long one that failed is left alone: nobody is to wait for its silence again and again."""


@dataclass(frozen=True, slots=True)
class TextVector:
    """A text as a unit vector of shape [384], and the model that made it."""

    values: NDArray[np.float32]
    model: str

    def literal(self) -> str:
        """As pgvector reads it."""
        return "[" + ",".join(f"{value:.5g}" for value in self.values.tolist()) + "]"


class TextVectors:
    """One process's embedder. Texts that arrive while it works wait together and are embedded together."""

    def __init__(self, load: Callable[[], Embedder], kept: int) -> None:
        self._load = load
        self._kept = kept
        self._found: OrderedDict[str, TextVector] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[TextVector]] = {}
        self._work: asyncio.Task[None] | None = None
        self._embedder: Embedder | None = None
        self._failure: tuple[float, EmbeddingUnavailable] | None = None
        """Until when it is left alone, and why."""

    async def vector(self, text: str) -> TextVector:
        """The vector of a text.

        Raises:
            EmbeddingUnavailable: the model is not installed, or its endpoint fails.
        """
        found = self._found.get(text)
        if found is not None:
            self._found.move_to_end(text)
            return found
        waiting = self._waiting.get(text)
        if waiting is None:
            waiting = self._waiting[text] = asyncio.get_running_loop().create_future()
            if self._work is None or self._work.done():
                self._work = asyncio.create_task(self._embed_waiting())
        return await asyncio.shield(waiting)  # whoever leaves takes nothing from the others

    async def aclose(self) -> None:
        """Finish what is under way and let go of the embedder."""
        if self._work is not None:
            await self._work
        if self._embedder is not None:
            self._embedder.close()

    async def _embed_waiting(self) -> None:
        while self._waiting:
            texts = list(self._waiting)[:BATCH]
            try:
                vectors = await asyncio.to_thread(self._embed, texts)
            except Exception as error:  # noqa: BLE001 (whoever waits gets it, whatever it is)
                for text in texts:
                    _fail(self._waiting.pop(text), error)
                continue
            for text, vector in zip(texts, vectors, strict=True):
                if isinstance(vector, EmbeddingRefused):
                    _fail(self._waiting.pop(text), vector)
                    continue
                self._found[text] = vector
                _answer(self._waiting.pop(text), vector)
            while len(self._found) > self._kept:
                self._found.popitem(last=False)

    def _embed(self, texts: list[str]) -> list[TextVector | EmbeddingRefused]:
        """Only ever called by the one thread that embeds."""
        if self._failure is not None and time.monotonic() < self._failure[0]:
            raise self._failure[1]
        try:
            found = embed_each(self._loaded(), texts)
        except EmbeddingUnavailable as error:
            pause = RETRY_S if self._embedder is None else PAUSE_S
            self._failure = (time.monotonic() + pause, error)
            raise
        model = self._loaded().model
        return [one if isinstance(one, EmbeddingRefused) else TextVector(one, model) for one in found]

    def _loaded(self) -> Embedder:
        if self._embedder is None:
            self._embedder = self._load()
        return self._embedder


def _answer(waiting: asyncio.Future[TextVector], vector: TextVector) -> None:
    if not waiting.done():
        waiting.set_result(vector)


def _fail(waiting: asyncio.Future[TextVector], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # seen here: whoever asked may be gone
