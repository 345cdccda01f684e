"""Running a model from the middle: blocks below a kept stream are skipped.

A block's output depends on nothing but its input, so a change at one hook needs only what lies above it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpedia_engine.hooks import Hook
from interpedia_engine.layouts import layout_of
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.sites import Edit, Observe, site

_EMBED = Hook("embed", None)


@dataclass(frozen=True)
class Start:
    """The input of the first block that runs (`n_layers`: none does), or of the embedding's readers (−1)."""

    block: int

    def hook(self, model: LanguageModel) -> Hook:
        """Return where the stream to start from is read."""
        if self.block < 0:
            return _EMBED
        if self.block == model.shape.n_layers:
            return Hook("resid_post", self.block - 1)
        return Hook("resid_pre", self.block)

    def blocks_run(self, model: LanguageModel) -> int:
        """Return how many blocks run from here."""
        return model.shape.n_layers - max(0, self.block)


def start_below(hooks: Iterable[Hook]) -> Start:
    """Return the highest start at which all `hooks` can still be changed."""
    return Start(min(_first_block(hook) for hook in hooks))


def _first_block(hook: Hook) -> int:
    if hook.layer is None:
        return -1
    return hook.layer + 1 if hook.kind == "resid_post" else hook.layer


def run_from(
    model: LanguageModel,
    start: Start,
    stream: Float[Tensor, "batch pos d_model"],
    edits: Sequence[tuple[Hook, Edit]],
    observers: Sequence[tuple[Hook, Observe]] = (),
) -> Float[Tensor, "batch pos d_model"]:
    """Return the stream after the final norm, with `edits` applied on the way, in order at a shared hook.

    Observers see what the edits of their hook left. Rows may be padded on the right: under a causal mask
    later positions change nothing. Gradients flow if the caller enabled them. Other threads must not run the
    model meanwhile.

    Raises:
        UnsupportedHook: an edit names a hook that cannot be written.
    """
    architecture = model.shape.architecture
    inputs = stream
    with ExitStack() as stack:
        stack.enter_context(_started(model, start, stream))
        for hook, edit in edits:
            if hook == _EMBED:
                inputs = edit(inputs)
            else:
                stack.callback(site(model.hf, hook, architecture=architecture).edit(edit).remove)
        for hook, observe in observers:
            if hook == _EMBED:
                observe(inputs)
            else:
                stack.callback(site(model.hf, hook, architecture=architecture).observe(observe).remove)
        output: Any = model.hf.base_model(inputs_embeds=inputs, use_cache=False)
    final: Tensor = output.last_hidden_state
    return final


@contextmanager
def _started(model: LanguageModel, start: Start, stream: Tensor) -> Generator[None]:
    """Make every block below `start` return `stream`, which is what the one at `start` then reads."""
    layers: Any = model.hf.get_submodule(layout_of(model.shape.architecture).layers)
    with ExitStack() as stack:
        if start.block == 0:
            entry = site(model.hf, Hook("resid_pre", 0), architecture=model.shape.architecture)
            stack.callback(entry.edit(lambda _: stream).remove)
        for block in layers[: max(0, start.block)]:
            stack.enter_context(_replaced_forward(block, lambda *_args, **_kwargs: stream))
        yield


@contextmanager
def _replaced_forward(block: nn.Module, forward: Callable[..., Tensor]) -> Generator[None]:
    """Shadow a block's method by an instance attribute; hooks on the block still run."""
    attributes: dict[str, Any] = vars(block)
    before = attributes.get("forward")
    attributes["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del attributes["forward"]
        else:
            attributes["forward"] = before


def observed(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    hooks: Iterable[Hook],
    positions: Sequence[int] | None = None,
) -> tuple[dict[Hook, Float[Tensor, "batch n d"]], Float[Tensor, "batch pos d_model"]]:
    """Run all blocks once; return the activations at `hooks`, and the stream after the final norm.

    Rows may be padded on the right, with any token. Only `positions` are kept of the activations, if given.

    Raises:
        UnsupportedHook: this architecture does not carry a hook.
    """
    seen: dict[Hook, Tensor] = {}
    kept = slice(None) if positions is None else list(positions)

    def keep(hook: Hook) -> Callable[[Tensor], None]:
        def callback(value: Tensor) -> None:
            seen[hook] = value[:, kept].clone()

        return callback

    with ExitStack() as stack, torch.inference_mode():
        for hook in dict.fromkeys(hooks):
            handle = site(model.hf, hook, architecture=model.shape.architecture).observe(keep(hook))
            stack.callback(handle.remove)
        final = model.run_body(tokens)
    return seen, final
