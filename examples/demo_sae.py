"""A TopK sparse autoencoder in plain torch, and its SAELens file format."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_activations import CONTEXT, MODEL_ID
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

FORMAT_VERSION = "6.54.12"  # of sae-lens, whose v6 config layout cfg.json follows


@dataclass
class TopKSae:
    """Weights of one TopK SAE, in the scale of the raw residual stream.

    Attributes:
        w_enc: Encoder, float32, shape (d_in, d_sae).
        b_enc: Encoder bias, float32, shape (d_sae,).
        w_dec: Decoder with unit-norm rows, float32, shape (d_sae, d_in).
        b_dec: Decoder bias, also subtracted from the input, float32, shape (d_in,).
        k: Latents kept per token.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    k: int

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes tokens, x of shape (tokens, d_in).

        Returns:
            Values (tokens, k), >= 0, in units of residual norm because decoder rows are
            unit vectors, and latent indices (tokens, k). A value of 0 is not active.
        """
        pre = (x - self.b_dec) @ self.w_enc + self.b_enc
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        return values.relu(), indices

    def decode(self, values: Tensor, indices: Tensor) -> Tensor:
        """Reconstructs (tokens, d_in) from sparse codes; touches k decoder rows a token."""
        bag = functional.embedding_bag(indices, self.w_dec, per_sample_weights=values, mode="sum")
        return bag + self.b_dec

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encodes and decodes, any leading shape over d_in."""
        flat = x.reshape(-1, x.shape[-1])
        return self.decode(*self.encode(flat)).reshape(x.shape)


def sae_id(layer: int, width: int) -> str:
    """Names an SAE by layer, site and width: 15-res-3k."""
    return f"{layer}-res-{width // 1024}k"


def config(sae: TopKSae, layer: int) -> dict[str, Any]:
    """Builds cfg.json.

    `dtype` is what sae-lens computes in, float32; the file itself holds float16.
    """
    d_in, d_sae = sae.w_enc.shape
    return {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "k": sae.k,
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            "sae_lens_training_version": None,
            "model_name": MODEL_ID,
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "hook_head_index": None,
            "hf_hook_name": f"model.layers.{layer}",
            "context_size": CONTEXT,
            "prepend_bos": True,
            "dataset_path": "examples/demo_corpus.jsonl.xz",
            "neuronpedia_id": None,
        },
    }


def save(sae: TopKSae, layer: int, folder: Path) -> None:
    """Writes cfg.json and float16 sae_weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    half = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(half, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config(sae, layer), indent=2) + "\n")


def load(folder: Path) -> TopKSae:
    """Reads an SAE back, float16 weights widened to float32: what every number is measured on."""
    cfg = json.loads((folder / "cfg.json").read_text())
    weights = {name: tensor.float() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    return TopKSae(weights["W_enc"], weights["b_enc"], weights["W_dec"], weights["b_dec"], cfg["k"])
