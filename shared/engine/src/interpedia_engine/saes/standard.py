"""The ReLU SAE."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interpedia_engine.saes.base import SAE


class StandardSAE(SAE):
    """f = relu((x − a·b_dec) W_enc + b_enc), with a = 1 if `apply_b_dec_to_input`.

    Source: Bricken et al. 2023, "Towards Monosemanticity".
    """

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        return self._pre_activations(x).relu()
