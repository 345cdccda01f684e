"""Which features fire on the same tokens: Pearson correlation over a sample of the counted tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from interpedia_ingest.dashboards.gather import FeatureBlock, counted_tokens
from interpedia_ingest.dashboards.hashing import Purpose, seeded_hash
from interpedia_ingest.dashboards.ranking import top_per_row
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.sparse import Compressed, multiply, stack, transpose
from interpedia_ingest.dashboards.spill import Spill
from interpedia_shared.dashboards import Coactive

_DENSE_ABOVE = 1 / 128
"""Mean share of feature pairs that fire on a token from which on dense products are the cheaper ones."""
_DENSE_TOKENS = 4096
_CONSTANT = 1e-9
"""A feature whose variance is below this share of its mean square is constant: it has no correlation."""


@dataclass(frozen=True, slots=True)
class TokenSample:
    """The counted tokens on which co-activation is computed."""

    places: NDArray[np.int32]
    """[n_rows * context_length] number in the sample, ascending, or -1."""
    size: int

    @classmethod
    def of(cls, spills: Sequence[Spill], selection: Selection, settings: DashboardSettings) -> TokenSample:
        """All counted tokens, or the `coactive_tokens` with the smallest hash of (context, position)."""
        chosen = np.flatnonzero(counted_tokens(spills))
        if len(chosen) > settings.coactive_tokens:
            hashes = seeded_hash(
                settings.seed,
                Purpose.TOKEN_SAMPLE,
                selection.contexts[chosen // selection.context_length],
                chosen % selection.context_length,
            )
            chosen = np.sort(
                chosen[np.argpartition(hashes, settings.coactive_tokens)[: settings.coactive_tokens]]
            )
        places = np.full(selection.tokens.size, -1, np.int32)
        places[chosen] = np.arange(len(chosen))
        return cls(places, len(chosen))


class Coactivation:
    """Correlates blocks of features with all features of the SAE.

    For features i and j over n tokens: r = (n Σab - Σa Σb) / √((n Σa² - (Σa)²)(n Σb² - (Σb)²)), in double
    precision, every sum in token order.
    """

    def __init__(self, spills: Sequence[Spill], sample: TokenSample, settings: DashboardSettings) -> None:
        """Read the sampled tokens of all features; costs one pass over the spills."""
        self._sample = sample
        self._settings = settings
        self._d_sae = spills[0].header.d_sae
        self._by_token = stack([_sampled_rows(spill, sample) for spill in spills])
        features, values = self._by_token.minor, self._by_token.values
        # (numpy counts in integers when there is nothing to weigh)
        self._sums = np.bincount(features, values, minlength=self._d_sae).astype(np.float64)
        self._squares = np.bincount(features, values * values, minlength=self._d_sae).astype(np.float64)
        per_token = np.diff(self._by_token.offsets).astype(np.float64)
        pairs = sample.size * float(self._d_sae) ** 2
        self._is_dense = float((per_token * per_token).sum()) > _DENSE_ABOVE * pairs

    def rows(self, block: FeatureBlock) -> list[Coactive]:
        """The features that correlate most with each one, highest first; ties go to the lower index.

        Only positive correlations, and only pairs that fire together on `coactive_min_count` tokens.
        """
        left = self._left(block)
        products, both = self._dense_products(left) if self._is_dense else self._sparse_products(left)
        own = np.arange(block.features.start, block.features.stop)
        pearson = self._pearson(products, own)
        pearson[both < self._settings.coactive_min_count] = -np.inf
        pearson[own - own[0], own] = -np.inf
        ids, values = top_per_row(torch.from_numpy(pearson), self._settings.n_ranked)
        counts = np.take_along_axis(both, ids.numpy(), axis=1).astype(np.uint32)
        all_ids, all_values = ids.numpy().astype(np.uint32), values.numpy()
        lengths = (all_values > 0).sum(axis=1).tolist()
        return [
            Coactive(all_ids[i, :length], all_values[i, :length], counts[i, :length])
            for i, length in enumerate(lengths)
        ]

    def _pearson(self, products: NDArray[np.float64], own: NDArray[np.int64]) -> NDArray[np.float32]:
        n = self._sample.size
        variances = n * self._squares - self._sums**2
        # An infinite variance makes the correlations of a constant feature 0, and these are not listed.
        variances[variances <= _CONSTANT * n * self._squares] = np.inf
        inverse = 1 / np.sqrt(variances)
        products *= n
        products -= self._sums[own, None] * self._sums
        products *= inverse[own, None]
        products *= inverse
        return np.clip(products, -1, 1).astype(np.float32)

    def _left(self, block: FeatureBlock) -> Compressed:
        places = self._sample.places[block.tokens]
        kept = places >= 0
        counts = np.bincount(block.owners[kept], minlength=len(block))
        return Compressed(
            offsets=np.concatenate(([0], np.cumsum(counts))),
            minor=places[kept],
            values=block.values[kept].astype(np.float64),
            n_minor=self._sample.size,
        )

    def _sparse_products(self, left: Compressed) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        products: NDArray[np.float64] = multiply(left, self._by_token)
        both: NDArray[np.int32] = multiply(_ones(left), _ones(self._by_token))
        return products, both

    def _dense_products(self, left: Compressed) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        by_token = transpose(left)
        products = np.zeros((left.n_major, self._d_sae))
        both = np.zeros((left.n_major, self._d_sae), np.float32)  # counts below 2**24: exact
        for first in range(0, self._sample.size, _DENSE_TOKENS):
            a, b = (_dense(part, first, first + _DENSE_TOKENS) for part in (by_token, self._by_token))
            products += a.T @ b
            both += (a != 0).astype(np.float32).T @ (b != 0).astype(np.float32)
        return products, both.astype(np.int32)


def _ones(matrix: Compressed) -> Compressed:
    return Compressed(matrix.offsets, matrix.minor, np.ones(len(matrix.minor), np.int32), matrix.n_minor)


def _dense(matrix: Compressed, first: int, stop: int) -> NDArray[np.float64]:
    offsets = matrix.offsets[first : min(stop, matrix.n_major) + 1]
    part = slice(int(offsets[0]), int(offsets[-1]))
    dense = np.zeros((len(offsets) - 1, matrix.n_minor))
    dense[np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), matrix.minor[part]] = matrix.values[part]
    return dense


def _sampled_rows(spill: Spill, sample: TokenSample) -> Compressed:
    """The sampled tokens of one shard by token; values in double precision."""
    header = spill.header
    first = header.first_row * header.context_length
    places = sample.places[first : first + header.n_rows * header.context_length]
    sampled = np.flatnonzero(places >= 0)
    base = int(places[sampled[0]]) if len(sampled) else 0
    found = places[spill.arrays["tokens"]]
    kept = np.flatnonzero(found >= 0)
    offsets = np.searchsorted(kept, spill.feature_offsets)
    by_feature = Compressed(
        offsets, found[kept] - base, spill.arrays["values"][kept].astype(np.float64), n_minor=len(sampled)
    )
    return transpose(by_feature)
