"""SAEs that keep the k largest activations of a token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.errors import BadSAEConfig
from interpedia_engine.saes.base import SAE, NonZero
from interpedia_engine.saes.config import SAEConfig


class TopKSAE(SAE):
    """f = relu of the k largest of (x − a·b_dec) W_enc + b_enc, zero elsewhere.

    With `rescale_acts_by_decoder_norm` the pre-activations are multiplied by the norms of their decoder rows
    first, and divided by them when decoding, as if the decoder had unit rows.

    Source: Gao et al. 2024 (arXiv:2406.04093), equation 3.
    """

    def __init__(self, cfg: SAEConfig, weights: Mapping[str, Tensor]) -> None:
        super().__init__(cfg, weights)
        if cfg.k is None:
            raise BadSAEConfig("k", "is missing")
        self.k = cfg.k
        self._decoder_norms = self.W_dec.norm(dim=-1) if cfg.rescale_acts_by_decoder_norm else None

    def decoder_rows(self, start: int, stop: int) -> Float[Tensor, "n d_out"]:
        """Return what one unit of activation of each of the features `start` to `stop` (exclusive) adds.

        With `rescale_acts_by_decoder_norm` these are the rows of W_dec divided by their norms.

        Raises:
            OutOfRange: the range is not within 0..d_sae.
        """
        rows = super().decoder_rows(start, stop)
        return rows if self._decoder_norms is None else rows / self._decoder_norms[start:stop, None]

    def encode_nonzero(self, x: Float[Tensor, "n d_in"]) -> NonZero:
        """Return the non-zero activations of `encode(x)`, sorted by token, then feature; never dense.

        Raises:
            WidthMismatch: the last dimension is not `d_in`.
        """
        features, values = self._top(self._scores(self._prepared(x)))
        features, order = features.sort(dim=-1)
        values = values.gather(-1, order)
        token, slot = values.nonzero(as_tuple=True)
        return NonZero(token, features[token, slot], values[token, slot])

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        scores = self._scores(x)
        features, values = self._top(scores)
        return torch.zeros_like(scores).scatter_(-1, features, values)

    def _scores(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        scores = self._pre_activations(x)
        return scores if self._decoder_norms is None else scores * self._decoder_norms

    def _top(self, scores: Float[Tensor, "... d_sae"]) -> tuple[Int[Tensor, "... k"], Float[Tensor, "... k"]]:
        """Return the features that are kept, in any order, and their activations."""
        top = torch.topk(scores, k=self.k, dim=-1, sorted=False)
        return top.indices, top.values.relu()

    def _decode(self, f: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        if self._decoder_norms is not None:
            f = f / self._decoder_norms
        return super()._decode(f)


class AbsTopKSAE(TopKSAE):
    """The k activations of largest magnitude with their sign, so features can be negative.

    Source: "AbsTopK: Rethinking Sparse Autoencoders For Bidirectional Features" (arXiv:2510.00404).
    """

    def _top(self, scores: Float[Tensor, "... d_sae"]) -> tuple[Int[Tensor, "... k"], Float[Tensor, "... k"]]:
        features = torch.topk(scores.abs(), k=self.k, dim=-1, sorted=False).indices
        return features, scores.gather(-1, features)
