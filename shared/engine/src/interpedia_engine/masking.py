"""Which positions of a batch count."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpedia_engine.errors import OutOfRange


def keep_mask(
    tokens: Int[Tensor, "batch pos"],
    *,
    ignore_ids: Collection[int] = (),
    ignore_positions: Collection[int] = (),
    prepend_bos: bool = False,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> Bool[Tensor, "batch pos"]:
    """Return True where a position counts.

    Args:
        tokens: Token ids.
        ignore_ids: Positions that hold one of these ids (BOS, padding, …) do not count.
        ignore_positions: Indices into `pos` that never count; from 0, negative ones are refused.
        prepend_bos: Every row starts with a BOS that was put there, so position 0 does not count.
        attention_mask: 0 where a row is padded.

    Raises:
        OutOfRange: a position is negative.
    """
    keep = torch.ones_like(tokens, dtype=torch.bool)
    if ignore_ids:
        ids = torch.tensor(sorted(ignore_ids), dtype=tokens.dtype, device=tokens.device)
        keep &= ~torch.isin(tokens, ids)
    for position in sorted(ignore_positions):
        if position < 0:
            raise OutOfRange("ignore_positions", f"positions count from 0, {position} is negative")
        keep[:, position : position + 1] = False
    if prepend_bos:
        keep[:, :1] = False
    if attention_mask is not None:
        keep &= attention_mask.to(torch.bool)
    return keep


def norm_mask(activations: Float[Tensor, "batch pos d"], *, limit: float) -> Bool[Tensor, "batch pos"]:
    """Return True where the activation's Euclidean norm is at most `limit`.

    Attention sinks have norms a hundred times the usual one. `limit` is a fixed number (say 10 times the
    median of a sample, see `median_norm`) rather than one taken from this batch, so that the answer does not
    depend on what else is in the batch.
    """
    return activations.float().norm(dim=-1) <= limit


def median_norm(activations: Float[Tensor, "batch pos d"], keep: Bool[Tensor, "batch pos"]) -> float:
    """Return the median Euclidean norm of the positions that count.

    Raises:
        OutOfRange: no position counts.
    """
    norms = activations.float().norm(dim=-1)[keep]
    if norms.numel() == 0:
        raise OutOfRange("keep", "no position counts, so there is no median")
    return float(norms.median())
