"""The gated SAE."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interpedia_engine.saes.base import SAE


class GatedSAE(SAE):
    """f = [x W_enc + b_gate > 0] · relu(x (W_enc · exp r_mag) + b_mag), x less b_dec where that applies.

    Source: Rajamanoharan et al. 2024 (arXiv:2404.16014), equations 6 and 7.
    """

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        if self.cfg.apply_b_dec_to_input:
            x = x - self.weights["b_dec"]
        projected = x @ self.weights["W_enc"]
        # exp(r_mag) scales columns, so one product serves both paths.
        magnitude = (projected * self.weights["r_mag"].exp() + self.weights["b_mag"]).relu()
        return magnitude * (projected + self.weights["b_gate"] > 0)
