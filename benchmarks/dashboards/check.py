"""Do both sides find the same? Compares the peer's JSON with what our run noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dashboards.inputs import CONTEXT_LENGTH

PRINTED_VALUE = 5e-4
"""Half of the last decimal that the peer keeps of an activation."""
PRINTED_DENSITY = 5e-6
"""Half of the last decimal that it keeps of a density."""
RELATIVE = 1e-4
"""Two float32 forward passes by different code."""


@dataclass(frozen=True)
class Agreement:
    """Shares of the compared features, 0..1."""

    features: int
    top_values: float
    """The maxima of the best contexts are the same numbers."""
    densities: float
    """The same number of active tokens, give or take one."""


def compare(output: Path, noted: Path, n_contexts: int) -> Agreement:
    """Compare all features that the peer wrote.

    The peer's 20 best tokens may lie in fewer contexts; their contexts' maxima are then the first of ours.
    """
    ours = np.load(noted)
    n_tokens = n_contexts * CONTEXT_LENGTH
    same_tops = same_densities = count = 0
    for feature in _features(output):
        index = int(feature["feature_index"])
        count += 1
        same_tops += _same_tops(_peer_tops(feature), ours["tops"][index])
        density = int(ours["n_active"][index]) / n_tokens
        same_densities += abs(density - float(feature["frac_nonzero"])) <= PRINTED_DENSITY + 1.01 / n_tokens
    return Agreement(count, same_tops / count, same_densities / count)


def _features(output: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(output.glob("batch-*.json")):
        yield from json.loads(file.read_text())["features"]


def _peer_tops(feature: dict[str, Any]) -> NDArray[np.float64]:
    """Maxima of the distinct contexts among the best tokens, best first; filler rows of zeros left out."""
    best: dict[tuple[str, ...], float] = {}
    for row in feature["activations"]:
        if row["bin_min"] == -1 and max(row["values"]) > 0:
            best[tuple(row["tokens"])] = max(row["values"])
    return np.sort(np.array(list(best.values()), np.float64))[::-1]


def _same_tops(peer: NDArray[np.float64], ours: NDArray[np.float32]) -> bool:
    first = ours[: len(peer)]
    return bool((np.abs(first - peer) <= PRINTED_VALUE + RELATIVE * np.abs(peer)).all())
