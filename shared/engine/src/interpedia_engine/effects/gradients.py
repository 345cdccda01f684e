"""How a metric changes with what dictionaries write: one backward pass through the blocks above them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.effects.clean import Clean, Setting, at_positions, batches, padded_streams
from interpedia_engine.effects.head import read_metrics
from interpedia_engine.effects.resume import run_from
from interpedia_engine.effects.steps import Progress, Steps
from interpedia_engine.hooks import Hook, hook_width
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.sites import Edit

Gradients = dict[Hook, Float[Tensor, "pos d"]]
BACKWARD_COST = 3
"""A forward and a backward pass, in forward passes."""


def gradients(setting: Setting, cleans: Sequence[Clean]) -> Steps[list[Gradients]]:
    """Return ∂metric/∂(activation at every hook that is written), for each prompt.

    All hooks share one pass, in which the model is unchanged: a gradient at a low hook counts every path to
    the metric, through the features of higher dictionaries as well as past them.
    """
    start = setting.lowest
    results: dict[int, Gradients] = {}
    lengths = [clean.length for clean in cleans]
    blocks = start.blocks_run(setting.model)
    for batch in batches(setting.pace, lengths, blocks=blocks, cost=BACKWARD_COST):
        yield Progress(len(results), len(cleans), "gradients")
        found = gradient_batch(setting, [cleans[i] for i in batch])
        results |= dict(zip(batch, found, strict=True))
    return [results[i] for i in range(len(cleans))]


def gradient_batch(
    setting: Setting, rows: Sequence[Clean], offsets: Sequence[Float[Tensor, "pos d"]] | None = None
) -> list[Gradients]:
    """Return the gradients of one batch.

    `offsets`, one per row, are added at the hook that the setting's only dictionary writes: the gradient is
    taken there instead of where the prompt is.
    """
    hooks = list(dict.fromkeys(dictionary.written for dictionary in setting.dictionaries))
    start = setting.lowest
    origin = start.hook(setting.model)
    # Streams were read under inference mode, whose tensors no backward pass can use; copies are ordinary.
    with torch.inference_mode(mode=False), torch.enable_grad():
        streams = padded_streams([row.streams[origin].clone() for row in rows])
        leaves = {hook: _leaf(setting.model, hook, streams, offsets) for hook in hooks}
        edits = [(hook, _adding(leaf)) for hook, leaf in leaves.items()]
        final = run_from(setting.model, start, streams, edits)
        read = at_positions(final, [row.length for row in rows])
        metrics = read_metrics(setting.model, read, [row.case.metric for row in rows])
        found = torch.autograd.grad(metrics.sum(), list(leaves.values()))
    by_hook = dict(zip(hooks, found, strict=True))
    return [{hook: by_hook[hook][i, : row.length] for hook in hooks} for i, row in enumerate(rows)]


def _leaf(
    model: LanguageModel, hook: Hook, like: Tensor, offsets: Sequence[Tensor] | None
) -> Float[Tensor, "batch pos d"]:
    width = hook_width(hook, model.shape)
    if offsets is None:
        leaf = torch.zeros(*like.shape[:2], width, dtype=like.dtype, device=like.device)
    else:
        leaf = padded_streams([offset.clone() for offset in offsets]).to(like.dtype)
    return leaf.requires_grad_()


def _adding(leaf: Tensor) -> Edit:
    return lambda x: x + leaf.to(x.device)
