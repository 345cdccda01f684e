"""The logit lens: what each layer's stream would predict if the model ended there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.effects.cases import check_tokens
from interpedia_engine.effects.head import all_logits, unembedding_rows
from interpedia_engine.effects.resume import observed
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import OutOfRange
from interpedia_engine.hooks import Hook
from interpedia_engine.layouts import layout_of
from interpedia_engine.models.language_model import LanguageModel


@dataclass(frozen=True)
class LensCell:
    """One layer at one position."""

    token_ids: list[int]
    """The k most probable, most probable first."""
    probabilities: list[float]
    entropy: float
    """Of the whole distribution, in nats."""
    next_token_rank: int | None
    """Rank from 0 of the token that follows; None at the last position."""
    next_token_probability: float | None


@dataclass(frozen=True)
class LensPlan:
    """What is read: None = all layers, all positions."""

    layers: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    k: int = 5


@dataclass(frozen=True)
class LensLayer:
    """`blocks.L.hook_resid_post` through final norm and unembedding; one cell per position asked for."""

    layer: int
    cells: list[LensCell]


def read_lens(
    model: LanguageModel, tokens: Sequence[int], plan: LensPlan, pace: Pace | None = None
) -> Steps[list[LensLayer]]:
    """Return the lens of one text, layers ascending and each once, positions in the order given.

    The last layer's cells are the model's own predictions.

    Raises:
        OutOfRange: a token, layer, position or `k` outside its range.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    ids = tuple(tokens)
    layers, positions = _checked(model, ids, plan)
    hooks = [Hook("resid_post", layer) for layer in layers]
    yield Progress(0, len(layers) * len(positions), "forward")
    seen, _ = observed(model, torch.tensor([ids]), hooks, positions=positions)
    rows = unembedding_rows(model, pace or Pace(), n_logits=2)
    following = [ids[position + 1] if position + 1 < len(ids) else None for position in positions]
    results: list[LensLayer] = []
    for number, (layer, hook) in enumerate(zip(layers, hooks, strict=True)):
        cells: list[LensCell] = []
        for first in range(0, len(positions), rows):
            yield Progress(number * len(positions) + first, len(layers) * len(positions), "unembed")
            stop = first + rows
            cells += _cells(model, seen[hook][0, first:stop], following[first:stop], plan.k)
        results.append(LensLayer(layer, cells))
    return results


def _checked(model: LanguageModel, tokens: tuple[int, ...], plan: LensPlan) -> tuple[list[int], list[int]]:
    check_tokens(model, tokens)
    n_layers = model.shape.n_layers
    layers = sorted(set(range(n_layers) if plan.layers is None else plan.layers))
    positions = list(range(len(tokens)) if plan.positions is None else plan.positions)
    for field, values, end in (("layers", layers, n_layers), ("positions", positions, len(tokens))):
        if not values:
            raise OutOfRange(field, "at least one is needed")
        wrong = next((value for value in values if not 0 <= value < end), None)
        if wrong is not None:
            raise OutOfRange(field, f"{wrong} is outside 0..{end - 1}")
    if not 1 <= plan.k <= model.shape.d_vocab:
        raise OutOfRange("k", f"{plan.k} is outside 1..{model.shape.d_vocab}")
    return layers, positions


def _cells(
    model: LanguageModel, stream: Float[Tensor, "pos d_model"], following: Sequence[int | None], k: int
) -> list[LensCell]:
    norm = model.hf.get_submodule(layout_of(model.shape.architecture).final_norm)
    with torch.inference_mode():
        logs = all_logits(model, norm(stream)).log_softmax(dim=-1)
        probabilities = logs.exp()
        # 0 · −∞ is 0 here: a token that cannot come adds nothing.
        entropy = torch.special.entr(probabilities).sum(dim=-1).tolist()
        top = logs.topk(k, dim=-1)
        cells: list[LensCell] = []
        for row, token in enumerate(following):
            own = None if token is None else logs[row, token]
            cells.append(
                LensCell(
                    token_ids=top.indices[row].tolist(),
                    probabilities=top.values[row].exp().tolist(),
                    entropy=entropy[row],
                    next_token_rank=None if own is None else int((logs[row] > own).sum()),
                    next_token_probability=None if own is None else float(own.exp()),
                )
            )
        return cells
