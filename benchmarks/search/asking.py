"""Callers of the search, and whether they find what an exact comparison of all vectors finds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import numpy as np
import orjson

from benchmarks.latency import KeepAlive, summarise
from benchmarks.search.loading import MODEL, sae_slug
from interpedia_shared.embeddings import Embedder
from interpedia_shared.embeddings.minilm import MODEL as ENCODER

CALLERS = 8
PAUSE_S = 0.5
"""Mean pause of a caller between two questions, exponentially distributed."""
RECALL_AT = 20
Filters = dict[str, str | float]


def filters() -> list[Filters]:
    """Narrow and wide filters, alone and together."""
    return [
        {"model": MODEL, "sae": sae_slug(3)},
        {"release": "release-1"},
        {"author": "author-1"},
        {"author": "author-7"},
        {"min_score": 0.9},
        {"min_density": 0.001, "max_density": 0.01},
        {"model": MODEL, "sae": sae_slug(8), "min_score": 0.6},
        {"release": "release-2", "author": "author-2", "min_score": 0.5, "max_density": 0.001},
    ]


def paths(queries: Sequence[str], narrowed: Sequence[Filters], mode: str) -> list[str]:
    """One search for each query, with the filters by turns."""
    return [
        f"/v1/search?{urlencode({'q': query, 'mode': mode, **narrowed[number % len(narrowed)]})}"
        for number, query in enumerate(queries)
    ]


@dataclass(frozen=True)
class Pace:
    """How callers ask."""

    callers: int = CALLERS
    pause_s: float = 0.0


def ask(base: str, asked: Sequence[str], pace: Pace) -> dict[str, Any]:
    """Let callers take one search after the other; latencies, and answers a second."""
    numbers = count()
    times: list[float] = []
    sizes: list[int] = []
    start = threading.Barrier(pace.callers)

    def call(caller: int) -> None:
        random = np.random.default_rng(caller)
        client = KeepAlive(base)
        client.get("/livez")
        start.wait()
        while (number := next(numbers)) < len(asked):
            if pace.pause_s:
                time.sleep(float(random.exponential(pace.pause_s)))
            began = time.perf_counter()
            body = client.get(asked[number])
            times.append(time.perf_counter() - began)
            sizes.append(len(body))
        client.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(pace.callers) as pool:
        for done in [pool.submit(call, caller) for caller in range(pace.callers)]:
            done.result()
    wall = time.perf_counter() - began
    return {**asdict(summarise(times, sizes)), "per_s": len(times) / wall}


CONDITIONS: dict[str, str] = {
    "sae": "sae_id = (SELECT id FROM sae WHERE slug = {})",
    "release": "e.release_id = (SELECT id FROM release WHERE slug = {})",
    "author": "e.account_id = (SELECT id FROM account WHERE name = {})",
    "min_score": "best_score >= {}",
    "min_density": "density >= {}",
    "max_density": "density <= {}",
}


def _literal(value: str | float) -> str:
    """A value of `filters` above, none of which has a quote."""
    return f"'{value}'" if isinstance(value, str) else repr(value)


async def exact(url: str, vector: np.ndarray, narrowed: Filters) -> list[tuple[str, int]]:
    """The nearest explanations by comparing all vectors that pass the filters: SAE and feature of each."""
    conditions = [
        CONDITIONS[name].format(_literal(value)) for name, value in narrowed.items() if name in CONDITIONS
    ]
    where = " AND ".join([f"embedding_model = '{ENCODER}'", *conditions])
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_indexscan = off; SET statement_timeout = 0")
        rows = await connection.fetch(
            f"SELECT sae.slug, feature_idx FROM explanation e JOIN sae ON sae.id = sae_id WHERE {where}"
            f" ORDER BY embedding <=> CAST($1 AS text)::halfvec(384) LIMIT {RECALL_AT}",
            "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]",
        )
    finally:
        await connection.close()
    return [(row["slug"], row["feature_idx"]) for row in rows]


def recall(
    base: str,
    embedder: Embedder,
    queries: Sequence[str],
    nearest: Callable[[np.ndarray, Filters], list[tuple[str, int]]],
    narrowed: Sequence[Filters],
) -> float:
    """Share of the exact nearest 20 that a semantic search answers with; mean over queries."""
    client = KeepAlive(base)
    shares: list[float] = []
    for number, (query, vector) in enumerate(zip(queries, embedder.embed(queries), strict=True)):
        wanted = set(nearest(vector, narrowed[number % len(narrowed)]))
        asked = {"q": query, "mode": "semantic", "limit": RECALL_AT, **narrowed[number % len(narrowed)]}
        answer = orjson.loads(client.get(f"/v1/search?{urlencode(asked)}"))
        found = {(item["sae"], item["index"]) for item in answer["items"]}
        if wanted:
            shares.append(len(wanted & found) / len(wanted))
    client.close()
    return float(np.mean(shares))


def backends_cpu_s(server: int) -> float:
    """CPU seconds so far of a Postgres server and all its processes, ended ones included."""
    spent = _ticks(Path(f"/proc/{server}/stat"), slice(11, 15))
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if _fields(path)[1] == str(server):
                spent += _ticks(path, slice(11, 13))
    return spent / os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[str]:
    """Fields of proc(5) from the third on, those behind the process's name."""
    return path.read_text().rsplit(")", 1)[1].split()


def _ticks(path: Path, times: slice) -> int:
    """The sum of utime and stime, or of cutime and cstime as well."""
    return sum(int(field) for field in _fields(path)[times])
