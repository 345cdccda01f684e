"""One SAE's encoder over the rows of many callers at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.interventions import read_features
from interpedia_engine.saes.base import SAE
from interpedia_inference.compute.contract import Floats, SparseValues

_DENSE_VALUES = 16 * 2**20
"""Most numbers of a dense code at once: 64 MiB of float32."""
_WHOLE_FROM = 0.5
"""From this share of the features on, the whole code is cheaper than picking columns."""


def columns_of(
    sae: SAE, rows: Sequence[Float[Tensor, "n d_in"]], features: Sequence[Sequence[int]]
) -> list[Floats]:
    """Return for each row of texts the activations of its features, float32 [n, its features].

    All rows are encoded together, for the union of the features.
    """
    union = sorted({index for indices in features for index in indices})
    column = {index: number for number, index in enumerate(union)}
    together = torch.cat([row.to(sae.device) for row in rows])
    parts: list[Tensor] = []
    is_whole = len(union) >= _WHOLE_FROM * sae.d_sae
    wanted = torch.tensor(union, device=sae.device)
    read = None if is_whole else read_features(sae, union)
    for chunk in _chunks(together, sae.d_sae):
        parts.append(sae.encode(chunk)[:, wanted] if read is None else read(chunk))
    values = torch.cat(parts).float().cpu().numpy() if parts else np.empty((0, len(union)), np.float32)
    ends = np.cumsum([len(row) for row in rows])
    return [
        values[end - len(row) : end][:, [column[index] for index in indices]]
        for row, end, indices in zip(rows, ends.tolist(), features, strict=True)
    ]


def sparse_of(sae: SAE, rows: Sequence[tuple[Float[Tensor, "n d_in"], np.ndarray]]) -> list[SparseValues]:
    """Return each row's activations that are not zero; `rows` are activations and their positions."""
    together = torch.cat([row.to(sae.device) for row, _ in rows])
    tokens: list[np.ndarray] = []
    features: list[np.ndarray] = []
    values: list[np.ndarray] = []
    offset = 0
    for chunk in _chunks(together, sae.d_sae):
        found = sae.encode_nonzero(chunk)
        tokens.append(found.token.cpu().numpy() + offset)
        features.append(found.feature.cpu().numpy())
        values.append(found.value.float().cpu().numpy())
        offset += len(chunk)
    token = np.concatenate(tokens) if tokens else np.empty(0, np.int64)
    feature = np.concatenate(features) if features else np.empty(0, np.int64)
    value = np.concatenate(values) if values else np.empty(0, np.float32)
    ends = np.cumsum([len(row) for row, _ in rows])
    starts = ends - [len(row) for row, _ in rows]
    cuts = np.searchsorted(token, [starts, ends])
    return [
        SparseValues(positions[token[a:b] - start], feature[a:b], value[a:b])
        for (_, positions), a, b, start in zip(rows, *cuts.tolist(), starts.tolist(), strict=True)
    ]


def _chunks(x: Float[Tensor, "n d_in"], d_sae: int) -> Sequence[Float[Tensor, "m d_in"]]:
    size = max(1, _DENSE_VALUES // d_sae)
    return [x[start : start + size] for start in range(0, len(x), size)]
