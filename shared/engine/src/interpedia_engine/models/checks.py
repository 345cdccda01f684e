"""A check of a freshly loaded model against transformers' own outputs."""

from __future__ import annotations

from typing import Any

import torch

from interpedia_engine.capture import capture
from interpedia_engine.errors import EngineError, ModelLoadFailed
from interpedia_engine.hooks import Hook
from interpedia_engine.models.language_model import LanguageModel

_PROMPT = "The cat sat by the river, and the bird sang."
_MAX_TOKENS = 24


def self_check(model: LanguageModel) -> None:
    """Check that captured activations are what the model computes, on one short prompt.

    Every block's input and output must equal transformers' `hidden_states`, and the last of them must be
    finite. Meant for the moment when a model is registered.

    Raises:
        ModelLoadFailed: one of these does not hold; the detail names the hook.
    """
    ids = model.tokenize(_PROMPT)[:_MAX_TOKENS]
    if model.bos_id is not None:
        ids = [model.bos_id, *ids]
    if not ids:
        raise ModelLoadFailed("tokenizer", "an English sentence gives no tokens")
    tokens = torch.tensor([ids])
    layers = range(model.shape.n_layers)
    before = [Hook("resid_pre", layer) for layer in layers]
    after = [Hook("resid_post", layer) for layer in layers]
    try:
        captured = capture(model, tokens, [*before, *after])
    except EngineError as error:
        raise ModelLoadFailed(error.field, error.detail) from error
    with torch.inference_mode():
        output: Any = model.hf.base_model(
            input_ids=tokens.to(model.device), output_hidden_states=True, use_cache=False
        )
    states: tuple[torch.Tensor, ...] = output.hidden_states
    for layer in layers:
        _same(before[layer], captured[before[layer]], states[layer])
        # The last entry of hidden_states has been through the final norm, so it is no stream to compare with.
        if layer + 1 < model.shape.n_layers:
            _same(after[layer], captured[after[layer]], states[layer + 1])
    if not torch.isfinite(captured[after[-1]]).all():
        raise ModelLoadFailed(after[-1].name, "holds NaN or infinite values on a short prompt")


def _same(hook: Hook, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    if ours.shape != theirs.shape or not torch.equal(ours, theirs):
        raise ModelLoadFailed(hook.name, "differs from the hidden states that transformers returns")
