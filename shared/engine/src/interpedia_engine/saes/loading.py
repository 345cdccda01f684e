"""From files to an SAE that computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interpedia_engine.errors import BadWeights
from interpedia_engine.saes.base import SAE
from interpedia_engine.saes.config import SAEConfig
from interpedia_engine.saes.files import check_layout, find_files, read_config
from interpedia_engine.saes.gated import GatedSAE
from interpedia_engine.saes.identity import IdentitySAE
from interpedia_engine.saes.jumprelu import JumpReLUSAE
from interpedia_engine.saes.standard import StandardSAE
from interpedia_engine.saes.tensors import expected_tensors
from interpedia_engine.saes.topk import AbsTopKSAE, TopKSAE
from interpedia_engine.saes.transcoder import (
    JumpReLUSkipTranscoder,
    JumpReLUTranscoder,
    SkipTranscoder,
    Transcoder,
)

CLASSES: dict[str, type[SAE]] = {
    "standard": StandardSAE,
    "gated": GatedSAE,
    "topk": TopKSAE,
    "abstopk": AbsTopKSAE,
    "jumprelu": JumpReLUSAE,
    "transcoder": Transcoder,
    "skip_transcoder": SkipTranscoder,
    "jumprelu_transcoder": JumpReLUTranscoder,
    "jumprelu_skip_transcoder": JumpReLUSkipTranscoder,
}
"""Every architecture with weights; `identity` has none."""


def load_sae(
    files: Path | str | Mapping[str, Path],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SAE:
    """Load an SAE in SAELens's format.

    The header and shapes are checked again, the values are not: `check_sae` does that once, at intake.

    Args:
        files: A folder with `cfg.json` and the weights, or paths by file name.
        device: Where the weights go.
        dtype: What encode and decode compute in, whatever the file's.

    Raises:
        BadSAEConfig, UnsupportedArchitecture, BadWeights, WidthMismatch: see `check_sae`.
    """
    found = find_files(files)
    cfg = read_config(found)
    check_layout(cfg, found)
    if found.weights is None:
        return IdentitySAE(cfg, dtype=dtype, device=device)
    stored = _load_file(found.weights)
    weights = {name: stored[name].to(device=device, dtype=dtype) for name in expected_tensors(cfg)}
    return build_sae(cfg, weights)


def build_sae(cfg: SAEConfig, weights: Mapping[str, Tensor]) -> SAE:
    """Make an SAE of tensors in memory; folds `norm_scaling_factor` into them.

    With s the factor, features of the raw x are those of s·x: W_enc·s, W_dec/s, b_dec/s; biases and
    thresholds of features stay.

    Source: SAELens 6, `fold_activation_norm_scaling_factor`.
    """
    folded = {name: tensor.detach() for name, tensor in weights.items()}
    if cfg.norm_scaling_factor is not None:
        folded["W_enc"] = folded["W_enc"] * cfg.norm_scaling_factor
        folded["W_dec"] = folded["W_dec"] / cfg.norm_scaling_factor
        folded["b_dec"] = folded["b_dec"] / cfg.norm_scaling_factor
    return CLASSES[cfg.architecture](cfg, folded)


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadWeights("weights", "cannot be read as safetensors") from error
