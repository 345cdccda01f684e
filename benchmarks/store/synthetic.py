"""Features that look like real ones in what storage sees: sizes, sparsity, spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from interpedia_ingest.dashboards.result import FeatureResult
from interpedia_shared.dashboards import (
    HISTOGRAM_BINS,
    N_INTERVALS,
    REASON_TOP,
    Coactive,
    Examples,
    FeatureStats,
    Histogram,
    Ranked,
)

CONTEXT_LENGTH = 128
N_VOCABULARY = 49_152
N_RANKED = 10
MEAN_NONZEROS = 12
MAX_NONZEROS = 40
DEAD_SHARE = 0.005
BLOCK = 1024


@dataclass(frozen=True)
class Shape:
    """How much there is."""

    n_versions: int = 12
    features_per_version: int = 24_576
    n_contexts: int = 24_576
    n_examples: int = 20

    @property
    def n_features(self) -> int:
        """Features of all SAEs."""
        return self.n_versions * self.features_per_version


def vocabulary() -> list[bytes]:
    """Tokens of 2 to 9 letters with a space in front, the frequent ones short, as in a real vocabulary."""
    random = np.random.default_rng(1)
    lengths = np.clip(2 + np.log2(np.arange(1, N_VOCABULARY + 1)) / 2.4, 2, 9).astype(int)
    letters = random.integers(ord("a"), ord("z") + 1, (N_VOCABULARY, 9), np.uint8)
    return [b" " + row[:length].tobytes() for row, length in zip(letters, lengths.tolist(), strict=True)]


def contexts(shape: Shape) -> NDArray[np.uint32]:
    """Token ids with Zipf's frequencies, BOS in front; shape [n_contexts, 128]."""
    random = np.random.default_rng(2)
    weights = 1 / np.arange(1, N_VOCABULARY + 1)
    edges = np.cumsum(weights / weights.sum())
    ids = np.searchsorted(edges, random.random((shape.n_contexts, CONTEXT_LENGTH)))
    ids = np.minimum(ids, N_VOCABULARY - 1).astype(np.uint32)
    ids[:, 0] = 1
    return ids


def features(shape: Shape, version: int, rows: range, tokens: NDArray[np.uint32]) -> Iterator[FeatureResult]:
    """Yield the features of a range, the same for the same version and range."""
    for first in range(rows.start, rows.stop, BLOCK):
        block = range(first, min(first + BLOCK, rows.stop))
        random = np.random.default_rng([3, version, first])
        densities = np.exp(random.uniform(np.log(2e-6), np.log(2e-2), len(block)))
        dead = random.random(len(block)) < DEAD_SHARE
        for place, index in enumerate(block):
            density = 0.0 if dead[place] else float(densities[place])
            yield _feature(random, shape, index, density=density, tokens=tokens)


def _feature(
    random: Generator, shape: Shape, index: int, *, density: float, tokens: NDArray[np.uint32]
) -> FeatureResult:
    n_counted = shape.n_contexts * (CONTEXT_LENGTH - 1)
    examples, peaks = _examples(random, shape) if density else (Examples.empty(), np.zeros(0, np.int64))
    peak_tokens = tokens[examples.contexts, examples.positions[peaks]] if density else np.zeros(0, np.uint32)
    return FeatureResult(
        index=index,
        n_counted_tokens=n_counted,
        peak_context=int(examples.contexts[0]) if density else None,
        peak_position=int(examples.positions[peaks[0]]) if density else None,
        peak_token_ids=tuple(dict.fromkeys(peak_tokens.tolist())),
        stats=_stats(random, shape, n_active=round(density * n_counted), examples=examples),
        examples=examples,
    )


def _examples(random: Generator, shape: Shape) -> tuple[Examples, NDArray[np.int64]]:
    """Examples by falling peak, and where in the values the peaks are."""
    n = shape.n_examples
    lengths = np.clip(random.poisson(MEAN_NONZEROS, n), 1, MAX_NONZEROS)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    places = np.argsort(random.random((n, CONTEXT_LENGTH - 1)), axis=1)
    positions = np.concatenate(
        [np.sort(row[:length]) + 1 for row, length in zip(places, lengths, strict=True)]
    )
    peak_values = np.sort(random.gamma(4.0, 3.0, n))[::-1]
    values = np.repeat(peak_values, lengths) * random.beta(1.0, 3.0, len(positions))
    peaks = offsets[:-1] + (random.random(n) * lengths).astype(np.int64)
    values[peaks] = peak_values
    return Examples(
        contexts=random.choice(shape.n_contexts, n, replace=False).astype(np.uint32),
        reasons=np.full(n, REASON_TOP, np.uint8),
        repeats=random.random(n) < 0.05,
        offsets=offsets.astype(np.uint32),
        positions=positions.astype(np.uint16),
        values=values.astype(np.float32),
    ), peaks


def _stats(random: Generator, shape: Shape, *, n_active: int, examples: Examples) -> FeatureStats:
    logits = np.sort(random.normal(0.0, 0.3, 2 * N_RANKED)).astype(np.float32)
    logit_counts = random.multinomial(N_VOCABULARY, _BELL).astype(np.uint32)
    silent = FeatureStats(
        logit_histogram=Histogram(-2.0, 2.0, logit_counts),
        top_logits=Ranked(_ids(random, N_VOCABULARY), 1 + logits[::-1][:N_RANKED]),
        bottom_logits=Ranked(_ids(random, N_VOCABULARY), -1 + logits[:N_RANKED]),
        cosine_neighbours=Ranked(_ids(random, shape.features_per_version), _falling(random)),
    )
    if not n_active:
        return silent
    top = float(examples.values.max())
    counts = random.multinomial(n_active, _DECAY).astype(np.uint32)
    return replace(
        silent,
        n_active_tokens=n_active,
        n_active_contexts=max(1, n_active // MEAN_NONZEROS),
        activation_sum=n_active * top / 4,
        activation_sum_squares=n_active * top * top / 10,
        min_activation=top / 50,
        max_activation=top,
        interval_counts=random.integers(0, n_active + 1, N_INTERVALS).astype(np.uint32),
        activation_histogram=Histogram(top / 50, top, counts),
        coactive=Coactive(
            _ids(random, shape.features_per_version),
            _falling(random),
            random.integers(3, 5000, N_RANKED).astype(np.uint32),
        ),
    )


def _ids(random: Generator, n: int) -> NDArray[np.uint32]:
    return random.integers(0, n, N_RANKED).astype(np.uint32)


def _falling(random: Generator) -> NDArray[np.float32]:
    return np.sort(random.random(N_RANKED))[::-1].astype(np.float32)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return weights / weights.sum()


_BELL = _shares(np.exp(-(np.linspace(-3, 3, HISTOGRAM_BINS) ** 2) / 2))
_DECAY = _shares(np.exp(-np.linspace(0, 5, HISTOGRAM_BINS)))
