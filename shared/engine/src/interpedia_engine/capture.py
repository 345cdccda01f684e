"""Reading activations in one forward pass that stops as soon as it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.errors import EngineError, OutOfRange
from interpedia_engine.hooks import Hook
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.sites import site


class _AllCaptured(Exception):
    """Ends the forward pass from inside: nothing after the last hook is computed."""


def capture(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    hooks: Sequence[Hook],
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> dict[Hook, Float[Tensor, "batch pos d"]]:
    """Return the activations at `hooks`, in the model's dtype.

    One forward pass under `torch.inference_mode`, stopped right after the last hook that is asked for;
    neither later layers nor logits are computed. Only copies of what is asked for are kept. `attn.hook_z` is
    flattened over heads.

    Args:
        model: From `load_model`.
        tokens: Token ids, with BOS where the caller wants one. At least one position.
        hooks: From `parse_hook`; duplicates are answered once.
        attention_mask: 1 for tokens, 0 for padding on either side. Values at padded positions mean nothing.

    Raises:
        OutOfRange: a token id, a layer or the number of positions is outside the model's range.
        UnsupportedHook: this architecture does not carry a hook.
    """
    wanted = list(dict.fromkeys(hooks))
    _check(model, tokens, wanted)
    if not wanted:
        return {}
    captured: dict[Hook, Tensor] = {}

    def keep(hook: Hook) -> Callable[[Tensor], None]:
        def callback(value: Tensor) -> None:
            captured[hook] = value.detach().clone()
            if len(captured) == len(wanted):
                raise _AllCaptured

        return callback

    with ExitStack() as stack, torch.inference_mode():
        for hook in wanted:
            handle = site(model.hf, hook, architecture=model.shape.architecture).observe(keep(hook))
            stack.callback(handle.remove)
        try:
            model.run_body(tokens, attention_mask)
        except _AllCaptured:
            return {hook: captured[hook] for hook in wanted}
    missed = ", ".join(hook.name for hook in wanted if hook not in captured)
    raise EngineError("hooks", f"the forward pass never came by {missed}")


def _check(model: LanguageModel, tokens: Tensor, hooks: Sequence[Hook]) -> None:
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise OutOfRange(
            "tokens", f"a non-empty [batch pos] tensor is needed, not shape {list(tokens.shape)}"
        )
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0 or highest >= model.shape.d_vocab:
        wrong = lowest if lowest < 0 else highest
        raise OutOfRange("tokens", f"token id {wrong} is outside 0..{model.shape.d_vocab - 1}")
    if tokens.shape[1] > model.max_positions:
        raise OutOfRange(
            "tokens", f"{tokens.shape[1]} positions are more than the model's {model.max_positions}"
        )
    for hook in hooks:
        if hook.layer is not None and not 0 <= hook.layer < model.shape.n_layers:
            raise OutOfRange(
                "hook", f"layer {hook.layer} of {hook.name!r} is outside 0..{model.shape.n_layers - 1}"
            )
