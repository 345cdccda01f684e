"""Nearest features of the same SAE by the cosine of their decoder rows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_ingest.dashboards.ranking import top_per_row
from interpedia_shared.dashboards import Ranked

_NEVER = float("-inf")


class CosineNeighbours:
    """Finds neighbours among all features of an SAE.

    A block of features is one product with the whole decoder, so that a block gives the same bits whatever
    else is asked for.
    """

    def __init__(self, decoder: Float[Tensor, "d_sae d_out"], k: int) -> None:
        """Take the decoder; rows of norm zero have no neighbours and are nobody's."""
        rows = decoder.detach().float()
        norms = rows.norm(dim=1, keepdim=True)
        self._unit = torch.where(norms > 0, rows / norms, 0.0)
        self._k = k

    def rows(self, features: range) -> list[Ranked]:
        """The k features with the highest positive cosine, highest first; ties go to the lower index."""
        cosines = self._unit[features.start : features.stop] @ self._unit.T
        own = torch.arange(features.start, features.stop, device=cosines.device)
        cosines[own - features.start, own] = _NEVER
        ids, values = top_per_row(cosines, self._k)
        return ranked_above_zero(ids, values.clamp(max=1.0))


def ranked_above_zero(ids: Tensor, values: Tensor) -> list[Ranked]:
    """Cut each row where its values are no longer positive."""
    all_ids, all_values = ids.cpu().numpy().astype(np.uint32), values.cpu().numpy()
    lengths = (all_values > 0).sum(axis=1).tolist()
    return [
        Ranked(one[:length], value[:length])
        for one, value, length in zip(all_ids, all_values, lengths, strict=True)
    ]
