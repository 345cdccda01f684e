"""What all measurements of live requests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.inference.callers import spent_by
from benchmarks.inference.floor import Floor
from benchmarks.inference.published import MODEL
from benchmarks.inference.texts import Texts
from benchmarks.inference.turns import Spent
from benchmarks.latency import KeepAlive
from benchmarks.services import Service

SAE = "15-res-3k"


@dataclass(frozen=True)
class Sizes:
    """How often each thing is measured."""

    one_caller: int = 30
    layers: int = 15
    many_rounds: int = 3
    texts_of_caller: dict[int, int] | None = None
    short_rounds: int = 3
    short_texts: int = 64
    pairs: int = 6
    together_rounds: int = 2
    staggered: int = 24
    mixed: int = 2000
    mixed_warm_up: int = 500

    @classmethod
    def quick(cls) -> Sizes:
        """To try the command out."""
        return cls(
            one_caller=5,
            layers=3,
            many_rounds=2,
            short_rounds=2,
            short_texts=32,
            pairs=2,
            together_rounds=1,
            staggered=12,
            mixed=200,
            mixed_warm_up=100,
        )


@dataclass(frozen=True)
class Bench:
    """The processes, and texts to ask about."""

    host: Service
    gateway: Callable[[], AbstractContextManager[Service]]
    """Starts one, for as long as the block lasts."""
    client: KeepAlive
    """Of the host."""
    floor: Floor
    texts: Texts
    sizes: Sizes

    def timed_post(self, path: str, body: dict[str, Any], client: KeepAlive | None = None) -> Spent:
        """One request of one caller."""
        raw = request(body)
        return spent_by(self.host, lambda: (client or self.client).post(path, raw))[1]

    def asked(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request's answer."""
        return orjson.loads(self.client.post(path, request(body)))


def request(body: dict[str, Any]) -> bytes:
    """A body as it goes over the wire, of the benchmark's model."""
    return orjson.dumps({"model": MODEL, **body})


def reading(text: str, features: Sequence[int] = (650,), sae: str = SAE) -> dict[str, Any]:
    """A request for features of one SAE on one text."""
    return {"texts": [text], "features": [{"sae": sae, "feature": index} for index in features]}
