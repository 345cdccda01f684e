"""From the stream after the final norm to logits, and from logits to metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.effects.cases import Metric
from interpedia_engine.effects.steps import Pace
from interpedia_engine.models.language_model import LanguageModel


def all_logits(model: LanguageModel, final: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
    """Return the logits of every token, in float32."""
    head: Any = model.hf.get_output_embeddings()
    logits: Tensor = head(final)
    return _capped(model, logits.float())


def some_logits(
    model: LanguageModel, final: Float[Tensor, "... d_model"], ids: Sequence[int]
) -> Float[Tensor, "... n"]:
    """Return the logits of a few tokens, in float32, without computing the others."""
    head: Any = model.hf.get_output_embeddings()
    index = torch.tensor(list(ids), device=model.device)
    logits = final.to(device=model.device, dtype=torch.float32) @ model.unembedding[index].float().T
    if head.bias is not None:
        logits = logits + head.bias[index].float()
    return _capped(model, logits)


def _capped(model: LanguageModel, logits: Tensor) -> Tensor:
    """Source: Gemma 2 (arXiv:2408.00118), section 2: logits ← cap · tanh(logits / cap)."""
    cap: float | None = getattr(model.hf.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def metric_of(good: Float[Tensor, " n_good"], bad: Float[Tensor, " n_bad"]) -> Float[Tensor, ""]:
    """Return logsumexp(good) − logsumexp(bad), or the first alone where there is no bad."""
    value = good.logsumexp(dim=-1)
    return value - bad.logsumexp(dim=-1) if bad.numel() else value


def read_metrics(
    model: LanguageModel, final: Float[Tensor, "rows d_model"], metrics: Sequence[Metric]
) -> Float[Tensor, " rows"]:
    """Return each row's metric, its position taken already."""
    values: list[Tensor] = []
    for row, metric in zip(final, metrics, strict=True):
        logits = some_logits(model, row, [*metric.good, *metric.bad])
        values.append(metric_of(logits[: len(metric.good)], logits[len(metric.good) :]))
    return torch.stack(values)


def unembedding_rows(model: LanguageModel, pace: Pace, n_logits: int = 1) -> int:
    """Return at how many positions all logits may be computed in one step, `n_logits` times each."""
    # A block multiplies with about 12 d_model² weights.
    blocks = max(1, round(model.shape.d_vocab / (12 * model.shape.d_model)))
    return pace.rows(positions=1, blocks=blocks, cost=n_logits)
