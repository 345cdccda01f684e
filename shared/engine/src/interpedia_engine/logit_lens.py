"""What a direction does to the logits, to first order and past all later layers.

For a decoder row d that is written to the residual stream, the effect on the logit of token t is

    effect_t = (g ⊙ d) · W_U[:, t]

with g the final norm's gain (weight; 1 + weight for Gemma) if asked for, else all ones. The norm's division
by the stream's size is left out, since it needs a token: effects are comparable within a row, up to a
positive factor between rows. A LayerNorm's centring and the output layer's bias are left out as well.
Computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpedia_engine.errors import UnsupportedHook, WidthMismatch
from interpedia_engine.hooks import Hook, hook_width
from interpedia_engine.layouts import NormKind, layout_of
from interpedia_engine.models.language_model import LanguageModel


def logit_effects(
    decoder_rows: Float[Tensor, "n d_model"], model: LanguageModel, final_norm_gain: bool
) -> Float[Tensor, "n d_vocab"]:
    """Return the effect of each direction on every token's logit.

    Args:
        decoder_rows: Directions in the residual stream; for a dictionary elsewhere, from
            `residual_directions`. The caller chooses n: the answer takes n · d_vocab · 4 bytes.
        model: Whose unembedding.
        final_norm_gain: Whether to apply g.

    Raises:
        WidthMismatch: the rows are not `d_model` wide.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens", applied to a decoder direction.
    """
    if decoder_rows.shape[-1] != model.shape.d_model:
        raise WidthMismatch("decoder_rows", f"have width {decoder_rows.shape[-1]}, not {model.shape.d_model}")
    with torch.inference_mode():
        rows = decoder_rows.to(device=model.device, dtype=torch.float32)
        if final_norm_gain:
            layout = layout_of(model.shape.architecture)
            rows = rows * norm_gain(model.hf.get_submodule(layout.final_norm), layout.norm)
        return rows @ model.unembedding.to(torch.float32).T


def residual_directions(
    rows: Float[Tensor, "n d_hook"], hook: Hook, model: LanguageModel
) -> Float[Tensor, "n d_model"]:
    """Map directions at the hook that a dictionary writes into directions of the residual stream.

    Residual hooks and what is added to the stream stay as they are. Neurons (`mlp.hook_post`) and heads
    (`attn.hook_z`) go through the module that writes them out: rows W_out, rows W_O. In Gemma 2 and 3 the
    gain of the norm after that module applies as well, up to a positive factor per token.

    Raises:
        UnsupportedHook: what is at the hook reaches the stream only through a non-linearity.
        WidthMismatch: the rows are not as wide as the hook.
    """
    width = hook_width(hook, model.shape)
    if rows.shape[-1] != width:
        raise WidthMismatch("rows", f"have width {rows.shape[-1]}, but {hook.name} has {width}")
    if hook.kind in ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        return rows
    layout = layout_of(model.shape.architecture)
    if hook.kind == "mlp_post":
        paths = layout.mlp_out_proj, layout.post_mlp_norm
    elif hook.kind == "attn_z":
        paths = layout.attention_out_proj, layout.post_attention_norm
    else:
        raise UnsupportedHook("hook", f"{hook.name} reaches the residual stream only through a non-linearity")
    block = model.hf.get_submodule(f"{layout.layers}.{hook.layer}")
    with torch.inference_mode():
        directions = rows.to(device=model.device, dtype=torch.float32) @ _out_matrix(
            block.get_submodule(paths[0])
        )
        if paths[1] is not None:
            directions = directions * norm_gain(block.get_submodule(paths[1]), layout.norm)
        return directions


def norm_gain(norm: nn.Module, kind: NormKind) -> Float[Tensor, " d_model"]:
    """Return what a norm multiplies its normalised input by, in float32."""
    weight: Any = norm.weight
    gain: Tensor = weight.to(torch.float32)
    return 1.0 + gain if kind == "rms_offset" else gain


def _out_matrix(projection: nn.Module) -> Float[Tensor, "d_hook d_model"]:
    weight: Any = projection.weight
    matrix: Tensor = weight.to(torch.float32)
    # torch's Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    return matrix.T if isinstance(projection, nn.Linear) else matrix
