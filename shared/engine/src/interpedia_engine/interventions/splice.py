"""Reading some features of an SAE, and writing the difference of two codes: what interventions rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.saes.base import SAE, prepare_input

Read = Callable[[Float[Tensor, "... d_in"]], Float[Tensor, "... n"]]

_ONE_BY_ONE = 64
_OF_ALL_FEATURES = frozenset({"b_dec", "W_skip"})
_EACH_FOR_ITSELF = frozenset(
    {
        *("standard", "gated", "jumprelu"),
        *("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
    }
)


def feature_delta(
    sae: SAE,
    x: Float[Tensor, "... d_in"],
    f: Float[Tensor, "... d_sae"],
    f_new: Float[Tensor, "... d_sae"],
) -> Float[Tensor, "... d_out"]:
    """Return what is to be added at the SAE's output hook to turn the code `f` into `f_new`.

    Equal to `decode(f_new, x) − decode(f, x)`, computed from the features that differ: biases and skip
    connections cancel before they are rounded, equal codes give exact zeros, and the reconstruction error of
    `x` stays in the stream. Differentiable in `f` and `f_new`.

    Args:
        sae: The dictionary.
        x: What was encoded, unprocessed, any dtype.
        f: Its code.
        f_new: The code that is wanted.
    """
    difference = (f_new - f).to(sae.dtype)
    changed: list[int] = difference.detach().flatten(0, -2).ne(0).any(dim=0).nonzero().flatten().tolist()
    delta = difference[..., changed] @ decoder_rows_of(sae, changed)
    scale = token_scale(sae, x)
    return delta if scale is None else delta * scale


def token_scale(sae: SAE, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... 1"] | None:
    """Return what a decoded difference is multiplied by at each token; None where that is 1.

    SAEs that normalise each token decode in the normalised scale. Transcoders do not scale back: their output
    lives at another hook.
    """
    if sae.cfg.is_transcoder:
        return None
    if sae.cfg.normalize_activations == "constant_norm_rescale":
        return prepare_input(x.to(sae.dtype), sae.cfg).norm(dim=-1, keepdim=True) / sae.d_in**0.5
    if sae.cfg.normalize_activations == "layer_norm":
        return prepare_input(x.to(sae.dtype), sae.cfg).std(dim=-1, keepdim=True)
    return None


def has_token_scale(sae: SAE) -> bool:
    """Return whether `token_scale` is anything but 1."""
    return not sae.cfg.is_transcoder and sae.cfg.normalize_activations in (
        "constant_norm_rescale",
        "layer_norm",
    )


def decoder_rows_of(sae: SAE, indices: Sequence[int]) -> Float[Tensor, "n d_out"]:
    """Return what one unit of activation of each feature adds, before `token_scale`."""
    if not indices:
        return torch.zeros(0, sae.d_out, dtype=sae.dtype, device=sae.device)
    if len(indices) > _ONE_BY_ONE:
        return sae.decoder_rows(0, sae.d_sae)[list(indices)]
    return torch.cat([sae.decoder_rows(index, index + 1) for index in indices])


def read_features(sae: SAE, indices: Sequence[int]) -> Read:
    """Return a function from `x` to the activations of these features, in this order.

    Where a feature depends on no other (standard, gated, jumprelu, their transcoders, neurons) only the
    columns asked for are computed; TopK needs the whole code, of the tokens it is given.
    """
    columns = torch.tensor(list(indices), dtype=torch.int64, device=sae.device)
    if sae.cfg.architecture == "identity":
        return lambda x: _coordinates(sae, x, columns)
    if sae.cfg.architecture in _EACH_FOR_ITSELF:
        return _only(sae, columns).encode
    return lambda x: sae.encode(x)[..., columns]


def _coordinates(sae: SAE, x: Tensor, columns: Tensor) -> Tensor:
    values = prepare_input(x.to(sae.dtype), sae.cfg)[..., columns.to(x.device)]
    return values.relu() if sae.cfg.is_positive_only else values


def _only(sae: SAE, columns: Tensor) -> SAE:
    """Return an SAE that has these features and no others."""
    weights = {
        name: tensor if name in _OF_ALL_FEATURES else _select(name, tensor, columns)
        for name, tensor in sae.weights.items()
    }
    return type(sae)(replace(sae.cfg, d_sae=len(columns)), weights)


def _select(name: str, tensor: Tensor, columns: Tensor) -> Tensor:
    return tensor[:, columns] if name == "W_enc" else tensor[columns]
