"""Transcoders: they read one hook and predict another."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interpedia_engine.errors import MissingInput
from interpedia_engine.saes.base import SAE
from interpedia_engine.saes.jumprelu import jump_relu


class Transcoder(SAE):
    """f = relu(x W_enc + b_enc); the output f W_dec + b_dec lives at another hook.

    A normalised input is not undone on the output, whose scale is another hook's.

    Source: Dunefsky et al. 2024 (arXiv:2406.11944), equation 3.
    """

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        return self._pre_activations(x).relu()

    def _denormalise(self, y: Float[Tensor, "... d_out"], x: Tensor | None) -> Float[Tensor, "... d_out"]:
        del x  # of another hook's scale
        return y


class JumpReLUTranscoder(Transcoder):
    """A transcoder with a threshold per feature."""

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        return jump_relu(self._pre_activations(x), self.weights["threshold"])


class SkipTranscoder(Transcoder):
    """A transcoder with a linear path past the features: adds x W_skipᵀ, with x as captured.

    Source: Paulo et al. 2025 (arXiv:2501.18823), section 3.
    """

    def _denormalise(self, y: Float[Tensor, "... d_out"], x: Tensor | None) -> Float[Tensor, "... d_out"]:
        if x is None:
            raise MissingInput("x", "a skip transcoder adds a linear map of its input to the output")
        return y + x.to(self.dtype) @ self.weights["W_skip"].T


class JumpReLUSkipTranscoder(SkipTranscoder, JumpReLUTranscoder):
    """A skip transcoder with a threshold per feature."""
