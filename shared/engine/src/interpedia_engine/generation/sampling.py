"""Choosing the next token of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.generation.request import Sampling

_NUCLEUS_GUESSES = (256, 4096)
_LEAST_TEMPERATURE = 1e-6
"""Below, the most probable token is taken."""


@dataclass(eq=False)
class Draws:
    """What one row's sampling depends on."""

    sampling: Sampling
    prompt: tuple[int, ...]
    generated: list[int] = field(default_factory=list[int])
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.sampling.seed)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token, with the model's own log-probabilities."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def choose(logits: Float[Tensor, "rows d_vocab"], rows: Sequence[Draws]) -> list[Choice | None]:
    """Choose a token for each row; None where the logits are not finite, whatever is in the other rows.

    Logits that the penalties make infinite count as such.
    """
    logits = logits.to(torch.float32)
    is_sound = torch.isfinite(logits.amin(dim=-1)) & torch.isfinite(logits.amax(dim=-1))
    log_sums = logits.logsumexp(dim=-1)
    return [
        _choice(logits[number], log_sums[number], row) if sound else None
        for number, (row, sound) in enumerate(zip(rows, is_sound.tolist(), strict=True))
    ]


def distribution(
    logits: Float[Tensor, " d_vocab"],
    sampling: Sampling,
    *,
    prompt: Sequence[int] = (),
    generated: Sequence[int] = (),
) -> Float[Tensor, " d_vocab"]:
    """Return the probabilities that a token is drawn with, at a temperature above 0."""
    return _probabilities(penalised(logits, sampling, prompt=prompt, generated=generated), sampling)


def _probabilities(scores: Float[Tensor, " d_vocab"], sampling: Sampling) -> Float[Tensor, " d_vocab"]:
    # From the largest score down, so that no temperature makes one infinite.
    scores = (scores - scores.amax()) / sampling.temperature
    if 0 < sampling.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(sampling.top_k).values[-1], -torch.inf)
    probabilities = scores.softmax(dim=-1)
    if sampling.top_p < 1.0:
        probabilities = _nucleus(probabilities, sampling.top_p)
    if sampling.min_p > 0.0:
        probabilities = probabilities.masked_fill(probabilities < sampling.min_p * probabilities.max(), 0.0)
    return probabilities


def penalised(
    logits: Float[Tensor, " d_vocab"], sampling: Sampling, *, prompt: Sequence[int], generated: Sequence[int]
) -> Float[Tensor, " d_vocab"]:
    """Return the logits after the penalties for what was said already."""
    if sampling.repetition_penalty != 1.0:
        used = _ids({*prompt, *generated}, logits.device)
        values = logits[used]
        factor = sampling.repetition_penalty
        logits = logits.index_put((used,), torch.where(values < 0, values * factor, values / factor))
    if generated and (sampling.frequency_penalty or sampling.presence_penalty):
        counts = Counter(generated)
        times = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
        used = _ids(counts, logits.device)
        less = times * sampling.frequency_penalty + sampling.presence_penalty
        logits = logits.index_put((used,), logits[used] - less)
    return logits


def _choice(logits: Float[Tensor, " d_vocab"], log_sum: Tensor, row: Draws) -> Choice | None:
    sampling = row.sampling
    scores = penalised(logits, sampling, prompt=row.prompt, generated=row.generated)
    if not bool(torch.isfinite(scores.amax())):
        return None
    if sampling.temperature < _LEAST_TEMPERATURE:
        token = int(scores.argmax())
    else:
        token = _draw(_probabilities(scores, sampling), row.generator)
    top: tuple[tuple[int, float], ...] = ()
    if sampling.n_logprobs:
        best = logits.topk(min(sampling.n_logprobs, len(logits)))
        values: list[float] = (best.values - log_sum).tolist()
        top = tuple(zip(best.indices.tolist(), values, strict=True))
    return Choice(token, float(logits[token] - log_sum), top)


def _draw(probabilities: Float[Tensor, " d_vocab"], generator: torch.Generator) -> int:
    """Draw by one uniform number, so that equal seeds stay in step whatever the distributions are."""
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    cumulative = probabilities.to(torch.float64).cumsum(dim=0)
    target = uniform.to(cumulative.device) * cumulative[-1]
    # The first token past the target has a probability above 0: where it is 0, the sum stands still.
    token = torch.searchsorted(cumulative, target, right=True)
    return int(token) if int(token) < len(cumulative) else int(probabilities.argmax())


def _nucleus(probabilities: Float[Tensor, " d_vocab"], top_p: float) -> Float[Tensor, " d_vocab"]:
    """Keep the most probable tokens until they reach `top_p`, at least one.

    Sorting the whole vocabulary is dear, and the nucleus is nearly always among the first few hundred.
    """
    size = len(probabilities)
    total = probabilities.sum()
    kept = torch.arange(0)
    for guess in (*(guess for guess in _NUCLEUS_GUESSES if guess < size), size):
        best = probabilities.topk(guess)
        before = best.values.cumsum(dim=0) - best.values
        keep = before < top_p * total
        keep[0] = True
        kept = best.indices[keep]
        if len(kept) < guess:
            break
    return torch.zeros_like(probabilities).index_put((kept,), probabilities[kept])


def _ids(ids: Sequence[int] | set[int] | Counter[int], device: torch.device) -> Int[Tensor, " n"]:
    return torch.tensor(list(ids), dtype=torch.int64, device=device)
