"""The k largest entries of each row of a wide matrix, exactly and with a rule for ties."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_RUN = 64
_LOW_BITS = 0xFFFFFFFF
_NAN_ORDER = 0x7FFFFFFF


Picked = tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]


def top_per_row(scores: Float[Tensor, "n width"], k: int, *, largest: bool = True) -> Picked:
    """Return columns and values of the k largest entries of each row, largest first (or the smallest).

    Of equal entries the lower column comes first. Instead of sorting rows, the extreme of every run of 64
    columns is found first: the k largest entries lie in the k runs with the largest maxima. A NaN is
    returned as the first entry of its row.

    Args:
        scores: float32; fewer than 2**32 columns.
        k: At most so many; fewer columns give fewer.
        largest: Whether to return the largest or the smallest entries.
    """
    n, width = scores.shape
    k = min(k, width)
    n_runs = width // _RUN
    if n_runs <= k:
        columns = torch.arange(width, device=scores.device).expand(n, width)
        return _pick(scores, columns, k, largest=largest)
    body = n_runs * _RUN
    runs_of = scores[:, :body].view(n, n_runs, _RUN)
    extremes = runs_of.amax(dim=-1) if largest else runs_of.amin(dim=-1)
    runs, _ = _pick(
        extremes, torch.arange(n_runs, device=scores.device).expand(n, n_runs), k, largest=largest
    )
    inside = runs[:, :, None] * _RUN + torch.arange(_RUN, device=scores.device)
    tail = torch.arange(body, width, device=scores.device).expand(n, width - body)
    columns = torch.cat([inside.reshape(n, -1), tail], dim=1)
    return _pick(scores.gather(1, columns), columns, k, largest=largest)


def _pick(values: Float[Tensor, "n m"], columns: Int[Tensor, "n m"], k: int, *, largest: bool) -> Picked:
    """Order by value, then by column, through one integer key that has no ties."""
    ranked = values if largest else -values
    bits = (ranked + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0.0: no negative zero
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ordered = torch.where(ranked.isnan(), _NAN_ORDER, ordered)
    keys = (ordered << 32) | (_LOW_BITS - columns)
    places = keys.topk(k, dim=1).indices
    return columns.gather(1, places), values.gather(1, places)
