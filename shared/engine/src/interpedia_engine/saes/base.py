"""What all SAEs share: preparing the input, and decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.errors import MissingInput, OutOfRange, WidthMismatch
from interpedia_engine.saes.config import SAEConfig

_LAYER_NORM_EPS = 1e-5


class NonZero(NamedTuple):
    """Sparse activations as coordinates: three tensors of equal length."""

    token: Int[Tensor, " nnz"]
    """Row of the input, ascending."""
    feature: Int[Tensor, " nnz"]
    """Feature index, ascending within a token."""
    value: Float[Tensor, " nnz"]
    """The activation, never zero."""


def prepare_input(x: Float[Tensor, "... d_in"], cfg: SAEConfig) -> Float[Tensor, "... d_in"]:
    """Turn a captured activation of the unprocessed model into what the SAE was trained on.

    `center` subtracts the mean over coordinates: what TransformerLens's `center_writing_weights` does to the
    residual stream of a LayerNorm model. `SAE.encode` calls this itself; call it to get the target that a
    reconstruction is compared with. Doing it twice changes nothing.
    """
    if cfg.input_transform == "center":
        return x - x.mean(dim=-1, keepdim=True)
    return x


class SAE(ABC):
    """A dictionary of features, for inference only.

    Tensors are float32 unless loaded otherwise. An activation that is exactly zero means "not active";
    `abstopk` and `identity` have negative ones, so ask for `!= 0`, never for `> 0`.
    """

    def __init__(self, cfg: SAEConfig, weights: Mapping[str, Tensor]) -> None:
        self.cfg = cfg
        self.weights = dict(weights)

    @property
    def d_in(self) -> int:
        """Width of the activations that are encoded."""
        return self.cfg.d_in

    @property
    def d_out(self) -> int:
        """Width of what is decoded; equal to `d_in` but for transcoders."""
        return self.cfg.d_out

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.cfg.d_sae

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that encode and decode compute in."""
        return self.W_dec.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"] | None:  # noqa: N802 - the literature's name
        """Encoder directions as columns; None where there are none (`identity`)."""
        return self.weights["W_enc"]

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_out"]:  # noqa: N802 - the literature's name
        """Decoder directions as rows, as stored; what a unit of activation adds is in `decoder_rows`."""
        return self.weights["W_dec"]

    def decoder_rows(self, start: int, stop: int) -> Float[Tensor, "n d_out"]:
        """Return what one unit of activation of each of the features `start` to `stop` (exclusive) adds.

        In the scale that the SAE decodes in: where the input is normalised per token, the output is scaled
        back by a number of that token's, which no row can hold.

        Raises:
            OutOfRange: the range is not within 0..d_sae.
        """
        self._check_range(start, stop)
        return self.W_dec[start:stop]

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        """Return every feature's activation, dense.

        Args:
            x: Captured activations of the unprocessed model, any dtype; heads flattened at `attn.hook_z`.

        Raises:
            WidthMismatch: the last dimension is not `d_in`.
        """
        return self._encode(self._prepared(x))

    def encode_nonzero(self, x: Float[Tensor, "n d_in"]) -> NonZero:
        """Return the activations of `encode(x)` that are not zero, sorted by token, then feature.

        For TopK SAEs the dense matrix is never made, which saves about a sixth of the time.

        Raises:
            WidthMismatch: the last dimension is not `d_in`.
        """
        dense = self.encode(x)
        token, feature = dense.nonzero(as_tuple=True)
        return NonZero(token, feature, dense[token, feature])

    def decode(
        self, f: Float[Tensor, "... d_sae"], x: Float[Tensor, "... d_in"] | None = None
    ) -> Float[Tensor, "... d_out"]:
        """Return what the activations `f` add up to.

        Args:
            f: Activations, as `encode` returns them.
            x: The input that was encoded; needed where the output depends on it beyond `f`: an input that is
                normalised per token, and a skip connection.

        Raises:
            MissingInput: `x` is needed and not given.
        """
        return self._denormalise(self._decode(f.to(self.dtype)), x)

    def _prepared(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        if x.shape[-1] != self.d_in:
            raise WidthMismatch("x", f"has width {x.shape[-1]}, the SAE reads {self.d_in}")
        return self._normalise(prepare_input(x.to(self.dtype), self.cfg))

    @abstractmethod
    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        """Encode an input that is normalised already."""

    def _decode(self, f: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        return f @ self.W_dec + self.weights["b_dec"]

    def _pre_activations(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        if self.cfg.apply_b_dec_to_input:
            x = x - self.weights["b_dec"]
        return x @ self.weights["W_enc"] + self.weights["b_enc"]

    def _normalise(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        """Source: SAELens 6, `normalize_activations`; its standard deviation is the unbiased one."""
        if self.cfg.normalize_activations == "constant_norm_rescale":
            return x * self._rescale(x)
        if self.cfg.normalize_activations == "layer_norm":
            centred = x - x.mean(dim=-1, keepdim=True)
            return centred / (centred.std(dim=-1, keepdim=True) + _LAYER_NORM_EPS)
        return x

    def _denormalise(self, y: Float[Tensor, "... d_out"], x: Tensor | None) -> Float[Tensor, "... d_out"]:
        normalization = self.cfg.normalize_activations
        if normalization not in ("constant_norm_rescale", "layer_norm"):
            return y
        if x is None:
            raise MissingInput(
                "x", f"normalize_activations={normalization} scales the output by the input's size"
            )
        x = prepare_input(x.to(self.dtype), self.cfg)
        if normalization == "constant_norm_rescale":
            return y / self._rescale(x)
        return y * x.std(dim=-1, keepdim=True) + x.mean(dim=-1, keepdim=True)

    def _rescale(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... 1"]:
        return self.d_in**0.5 / x.norm(dim=-1, keepdim=True)

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.d_sae:
            raise OutOfRange("feature", f"{start}..{stop} is not within 0..{self.d_sae}")
