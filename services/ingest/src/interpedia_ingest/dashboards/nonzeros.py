"""Encoding the tokens that count and keeping their non-zero activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from interpedia_engine.saes.base import SAE
from interpedia_ingest.dashboards.errors import NotFinite
from interpedia_ingest.dashboards.sparse import Compressed, transpose

CHUNK_BYTES = 16 << 20
"""Wanted size of a dense matrix of activations, tokens x features: it should stay in the cache."""
CHUNK_TOKENS = 512
"""Fewer tokens make the encoder's product slow, so wide SAEs get larger chunks, up to `MOST_BYTES`."""
MOST_BYTES = 256 << 20
RECONSTRUCT_EVERY = 4
"""Of the tokens on which the reconstruction could be measured, one in so many is: decoding is dear."""


class NonzeroCollector:
    """Collects one SAE's activations on one shard, group by group in row order."""

    def __init__(self, name: str, sae: SAE, *, n_rows: int, context_length: int) -> None:
        self._name = name
        self._sae = sae
        self._length = context_length
        self._counted = np.zeros(n_rows * context_length, np.bool_)
        self._active = np.zeros(n_rows * context_length, np.int64)
        self._features: list[NDArray[np.int32]] = []
        self._values: list[NDArray[np.float32]] = []
        self._sums: list[NDArray[np.float64]] = []
        self._means: list[NDArray[np.float64]] = []
        self._rows_seen = 0

    def add(
        self,
        keep: Bool[Tensor, "batch pos"],
        x: Float[Tensor, "batch pos d_in"],
        *,
        target: Float[Tensor, "batch pos d_out"] | None,
    ) -> None:
        """Encode the kept positions of the next group of rows.

        Args:
            keep: Positions that count.
            x: The SAE's input as captured.
            target: What it should reconstruct; None where the reconstruction is not measured.

        Raises:
            NotFinite: an activation is NaN or infinite.
        """
        positions = np.flatnonzero(keep.cpu().numpy()) + self._rows_seen * self._length
        self._rows_seen += len(keep)
        self._counted[positions] = True
        mask = keep.to(x.device)
        kept, wanted = x[mask], None if target is None else target[mask]
        step = chunk_tokens(self._sae.d_sae)
        measured, n_measured = np.zeros(2 + self._sae.d_out), 0
        for first in range(0, len(kept), step):
            part = kept[first : first + step]
            features = self._sae.encode(part)
            self._active[positions[first : first + step]] = self._keep_nonzero(features)
            if wanted is not None:
                some = slice(first, first + step, RECONSTRUCT_EVERY)
                measured += _reconstruction(
                    self._sae, kept[some], features[::RECONSTRUCT_EVERY], target=wanted[some]
                )
                n_measured += len(wanted[some])
        if wanted is not None:
            self._sums.append(np.array([n_measured, *measured[:2]]))
            self._means.append(measured[2:])

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the spill, sorted by (feature, row, position); the collector is spent."""
        by_token = Compressed(
            offsets=np.concatenate(([0], np.cumsum(self._active))),
            minor=np.concatenate([np.zeros(0, np.int32), *self._features]),
            values=np.concatenate([np.zeros(0, np.float32), *self._values]),
            n_minor=self._sae.d_sae,
        )
        self._features, self._values = [], []
        by_feature = transpose(by_token)
        counted = self._counted.reshape(-1, self._length)
        return {
            "feature_offsets": by_feature.offsets,
            "tokens": by_feature.minor,
            "values": by_feature.values,
            "counted": np.packbits(counted, axis=1),
            "reconstruction_sums": np.array(self._sums).reshape(-1, 3),
            "reconstruction_means": np.array(self._means).reshape(-1, self._sae.d_out),
        }

    @property
    def n_counted(self) -> int:
        """Positions that counted so far."""
        return int(self._counted.sum())

    def _keep_nonzero(self, features: Float[Tensor, "token d_sae"]) -> NDArray[np.int64]:
        dense: NDArray[np.float32] = features.float().cpu().numpy()
        flat = np.flatnonzero(dense != 0)
        values = dense.reshape(-1)[flat]
        n_tokens, d_sae = dense.shape
        bounds = np.searchsorted(flat, np.arange(n_tokens + 1) * d_sae)
        active = np.diff(bounds)
        indices = flat - np.repeat(np.arange(n_tokens) * d_sae, active)
        if not np.isfinite(values).all():
            wrong = int(indices[~np.isfinite(values)][0])
            raise NotFinite("activation", f"feature {wrong} of {self._name} is NaN or infinite on a token")
        self._features.append(indices.astype(np.int32))
        self._values.append(values)
        return active


def chunk_tokens(d_sae: int) -> int:
    """Tokens that are encoded at once: a function of the width only, so that chunks are always the same."""
    row = 4 * d_sae
    return max(1, min(MOST_BYTES, max(CHUNK_BYTES, CHUNK_TOKENS * row)) // row)


def _reconstruction(
    sae: SAE, x: Tensor, features: Tensor, *, target: Float[Tensor, "token d_out"]
) -> NDArray[np.float64]:
    """Sum of squared errors, sum of squares, and the sums of the target by coordinate; shape [2 + d_out]."""
    wanted = target.to(torch.float64)
    error = wanted - sae.decode(features, x).to(torch.float64)
    sums = torch.cat([error.square().sum()[None], wanted.square().sum()[None], wanted.sum(dim=0)])
    return sums.cpu().numpy()
