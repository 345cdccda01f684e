"""A sample of the corpus that near misses are looked for in; one for all features of a build."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.material.backend import Embedder
from interpedia_autointerp.material.cutting import Cut, grid
from interpedia_autointerp.material.source import Build, Passage


class Pool:
    """Grid windows of contexts that were drawn uniformly.

    Args:
        build: where they are from.
        passages: the contexts, in an order by chance.
        size: tokens of a window.
        embedder: for windows that are close in meaning; without one there are none of that kind.
        n_embedded: windows that are embedded, once, at the first use. About 20 of them take a CPU second.
    """

    def __init__(
        self,
        build: Build,
        passages: Sequence[Passage],
        *,
        size: int = 32,
        embedder: Embedder | None = None,
        n_embedded: int = 512,
    ) -> None:
        self.build = build
        self.places = [
            (passage, start, stop)
            for passage in passages
            for start, stop in grid(len(passage.ids), build.first, size)
        ]
        self.embedder = embedder
        # windows of one context are neighbours in the list: take them from all over it
        order = list(range(len(self.places)))
        random.Random(0).shuffle(order)
        self._embedded = order[:n_embedded]
        self._vectors: NDArray[np.float32] | None = None
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def _by_token(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number, (passage, start, stop) in enumerate(self.places):
            for token in dict.fromkeys(passage.ids[start:stop].tolist()):
                found.setdefault(token, []).append(number)
        return found

    def with_tokens(self, tokens: Sequence[int]) -> dict[int, int]:
        """Windows that hold any of the tokens, each with the first that it holds.

        In an order in which those of rare tokens take turns with those of common ones.
        """
        owned: dict[int, list[int]] = {token: [] for token in tokens}
        owners: dict[int, int] = {}
        for token in tokens:
            for number in self._by_token.get(token, []):
                if owners.setdefault(number, token) == token:
                    owned[token].append(number)
        turns = (number for turn in zip_longest(*owned.values()) for number in turn if number is not None)
        return {number: owners[number] for number in turns}

    async def nearest(self, texts: Sequence[str], without: set[int]) -> list[int]:
        """Embedded windows, the closest to each text in turn: not all next to one text."""
        if self.embedder is None or not texts or not self.places:
            return []
        async with self._lock:
            if self._vectors is None:
                shown = [self.text(number) for number in self._embedded]
                self._vectors = await asyncio.to_thread(self.embedder.embed, shown)
        queries = await asyncio.to_thread(self.embedder.embed, texts)
        ranked = np.argsort(-(queries @ self._vectors.T), axis=1, kind="stable")
        turns = (self._embedded[int(place)] for turn in ranked.T for place in turn)
        return [number for number in dict.fromkeys(turns) if number not in without]

    @property
    def embedded(self) -> list[int]:
        """The windows among which the nearest are looked for."""
        return self._embedded

    def text(self, number: int) -> str:
        """One window's text."""
        passage, start, stop = self.places[number]
        return "".join(self.build.pieces(passage.ids[start:stop]))

    def cut(self, number: int, stratum: str, weight: float) -> Cut:
        """One window."""
        passage, start, stop = self.places[number]
        return Cut(passage, start, stop, stratum, weight)
