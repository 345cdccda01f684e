"""The JumpReLU SAE."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interpedia_engine.saes.base import SAE


def jump_relu(
    pre: Float[Tensor, "... d_sae"], threshold: Float[Tensor, " d_sae"]
) -> Float[Tensor, "... d_sae"]:
    """Return relu(pre) where pre > threshold, else zero.

    Source: Rajamanoharan et al. 2024 (arXiv:2407.14435), equation 4.
    """
    return pre.relu() * (pre > threshold)


class JumpReLUSAE(SAE):
    """f = jump_relu((x − a·b_dec) W_enc + b_enc, threshold); BatchTopK SAEs are saved as this."""

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        return jump_relu(self._pre_activations(x), self.weights["threshold"])
