"""What the gateway is asked for."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

import numpy as np

from benchmarks.latency import KeepAlive, measure, summarise
from benchmarks.store.ours import MODEL, sae_slug
from benchmarks.store.synthetic import Shape

LOG = logging.getLogger("bench.store")
DASHBOARDS = 1000
LIST_LIMIT = 10
PAGES = (1, 10, 100, 1000)
LIST_ROUNDS = 100
LIST_SAES = 3
PROMOTES = 300


def _sae_path(version: int) -> str:
    return f"/v1/models/{MODEL}/saes/{sae_slug(version)}"


def dashboards(client: KeepAlive, shape: Shape) -> dict[str, Any]:
    """Dashboards of random features of all SAEs."""
    random = np.random.default_rng(4)
    versions = random.integers(0, shape.n_versions, DASHBOARDS).tolist()
    indices = random.integers(0, shape.features_per_version, DASHBOARDS).tolist()
    paths = [
        f"{_sae_path(version)}/features/{index}" for version, index in zip(versions, indices, strict=True)
    ]
    return asdict(measure(client.get, paths, warm_up=100))


def lists(client: KeepAlive, shape: Shape, min_density: float) -> dict[str, Any]:
    """Pages of a filtered and sorted list, near and deep, by turns."""
    paths = _page_paths(client, shape, min_density)
    times: dict[int, list[float]] = {page: [] for page in paths}
    sizes: dict[int, list[int]] = {page: [] for page in paths}
    for number in range(LIST_ROUNDS * LIST_SAES):
        for page, urls in paths.items():
            began = time.perf_counter()
            body = client.get(urls[number % len(urls)])
            times[page].append(time.perf_counter() - began)
            sizes[page].append(len(body))
    return {str(page): asdict(summarise(times[page], sizes[page])) for page in paths}


def _page_paths(client: KeepAlive, shape: Shape, min_density: float) -> dict[int, list[str]]:
    """Where the pages are, by following cursors from the first one on, on some of the SAEs."""
    query = {
        "sort": "density",
        "order": "desc",
        "min_density": min_density,
        "alive": "true",
        "limit": LIST_LIMIT,
    }
    found: dict[int, list[str]] = {page: [] for page in PAGES}
    for version in range(min(LIST_SAES, shape.n_versions)):
        cursor: str | None = None
        for page in range(1, max(PAGES) + 1):
            asked = query if cursor is None else {**query, "cursor": cursor}
            path = f"{_sae_path(version)}/features?{urlencode(asked)}"
            if page in found:
                found[page].append(path)
            cursor = json.loads(client.get(path))["next_cursor"]
            if cursor is None:
                LOG.info("the list has %d pages only", page)
                break
    return {page: paths for page, paths in found.items() if paths}


def promoting(client: KeepAlive, shape: Shape, token_ids: Sequence[int]) -> dict[str, Any]:
    """First pages of the features that promote a token."""
    random = np.random.default_rng(5)
    versions = random.integers(0, shape.n_versions, PROMOTES).tolist()
    tokens = random.choice(np.asarray(token_ids), PROMOTES).tolist()
    pairs = zip(versions, tokens, strict=True)
    paths = [
        f"{_sae_path(version)}/features?{urlencode({'promotes': token, 'alive': 'true'})}"
        for version, token in pairs
    ]
    return asdict(measure(client.get, paths, warm_up=50))
