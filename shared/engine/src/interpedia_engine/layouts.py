"""Where things are in each model architecture, as module paths. No torch.

A layout is only listed when every hook it offers was compared with TransformerLens on that architecture,
because a wrong module path yields plausible numbers rather than an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from interpedia_engine.errors import UnsupportedArchitecture

NormKind = Literal["rms", "rms_offset", "layer"]
"""`rms` scales by `weight`, `rms_offset` (Gemma) by `1 + weight`; `layer` also centres and has a bias."""


@dataclass(frozen=True)
class Layout:
    """Module paths of one architecture; those within a block are relative to the block."""

    layers: str
    embed: str
    final_norm: str
    attention: str
    attention_out_proj: str
    mlp: str
    mlp_out_proj: str
    pre_mlp_norm: str
    """The norm whose input is the residual stream between attention and MLP."""
    pre_attention_norm: str
    mlp_gate: str | None
    """The module whose output goes through the MLP's non-linearity; None when it is fused with another."""
    norm: NormKind
    post_attention_norm: str | None = None
    """A norm on the attention's output before it joins the residual stream (Gemma 2 and 3)."""
    post_mlp_norm: str | None = None
    is_parallel: bool = False
    """Attention and MLP both read the block's input, so that there is no stream between them."""


_LLAMA = Layout(
    layers="model.layers",
    embed="model.embed_tokens",
    final_norm="model.norm",
    attention="self_attn",
    attention_out_proj="self_attn.o_proj",
    mlp="mlp",
    mlp_out_proj="mlp.down_proj",
    pre_mlp_norm="post_attention_layernorm",
    pre_attention_norm="input_layernorm",
    mlp_gate="mlp.gate_proj",
    norm="rms",
)
_GEMMA_SANDWICH = replace(
    _LLAMA,
    norm="rms_offset",
    pre_mlp_norm="pre_feedforward_layernorm",
    post_attention_norm="post_attention_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
)

LAYOUTS: dict[str, Layout] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": replace(_LLAMA, mlp_gate=None),
    "gemma": replace(_LLAMA, norm="rms_offset"),
    "gemma2": _GEMMA_SANDWICH,
    "gemma3_text": _GEMMA_SANDWICH,
    "gpt2": Layout(
        layers="transformer.h",
        embed="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_out_proj="attn.c_proj",
        mlp="mlp",
        mlp_out_proj="mlp.c_proj",
        pre_mlp_norm="ln_2",
        pre_attention_norm="ln_1",
        mlp_gate="mlp.c_fc",
        norm="layer",
    ),
    "gpt_neox": Layout(
        layers="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_out_proj="attention.dense",
        mlp="mlp",
        mlp_out_proj="mlp.dense_4h_to_h",
        pre_mlp_norm="post_attention_layernorm",
        pre_attention_norm="input_layernorm",
        mlp_gate="mlp.dense_h_to_4h",
        norm="layer",
        is_parallel=True,
    ),
}
"""Layouts by the `model_type` of the model's Hugging Face configuration."""


def layout_of(architecture: str) -> Layout:
    """Return the layout of a Hugging Face `model_type`.

    Raises:
        UnsupportedArchitecture: the engine has no layout for it; the detail lists those it has.
    """
    layout = LAYOUTS.get(architecture)
    if layout is None:
        known = ", ".join(sorted(LAYOUTS))
        raise UnsupportedArchitecture("architecture", f"{architecture!r} is not one of {known}")
    return layout
