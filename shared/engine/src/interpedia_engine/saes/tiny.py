"""Small random SAEs in SAELens's format, written without sae-lens: for tests and examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from interpedia_engine.hooks import Hook, ModelShape, hook_width
from interpedia_engine.saes.config import TRANSCODERS, parse_config
from interpedia_engine.saes.tensors import expected_tensors

SAE_LENS_VERSION = "6.54.12"


def tiny_sae(
    folder: Path | str,
    *,
    shape: ModelShape,
    hook: Hook,
    d_sae: int = 96,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Write `cfg.json` and `sae_weights.safetensors` of a deterministic random SAE and return the folder.

    Args:
        folder: Made if it is missing.
        shape: The model's.
        hook: Where it reads; a transcoder reads there and writes at the same layer's `hook_mlp_out`.
        d_sae: Number of features.
        seed: Of the weights.
        overrides: Fields of `cfg.json` on top of a TopK SAE's with k = 8, e.g. `{"architecture":
            "jumprelu"}`, or `{"dtype": "float16"}` to store half precision. `metadata` is merged.
    """
    config = _config(shape, hook, d_sae, dict(overrides or {}))
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    data = json.dumps(config, indent=1).encode()
    (path / "cfg.json").write_bytes(data)
    tensors = _random_weights(expected_tensors(parse_config(data)), seed)
    if tensors:
        stored = getattr(torch, str(config["dtype"]))
        save_file(
            {name: tensor.to(stored) for name, tensor in tensors.items()}, path / "sae_weights.safetensors"
        )
    return path


def _config(shape: ModelShape, hook: Hook, d_sae: int, fields: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "sae_lens_version": SAE_LENS_VERSION,
        "model_name": "tiny",
        "hook_name": hook.name,
        **fields.pop("metadata", {}),
    }
    architecture = fields.get("architecture", "topk")
    width = hook_width(hook, shape)
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": width,
        "d_sae": width if architecture == "identity" else d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": architecture not in TRANSCODERS,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }
    if architecture in ("topk", "abstopk"):
        config |= {"k": 8, "rescale_acts_by_decoder_norm": False}
    if architecture in TRANSCODERS:
        config["d_out"] = shape.d_model
        metadata.setdefault("hook_name_out", f"blocks.{hook.layer}.hook_mlp_out")
    return config | fields


def _random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Draw weights in which decoder rows have unequal norms and no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, size in sorted(shapes.items()):
        noise = torch.randn(size, generator=generator)
        scale = 1.0 / size[0] ** 0.5 if name in ("W_enc", "W_skip") else 0.3
        weights[name] = noise.abs() if name == "threshold" else noise * scale
    return weights
