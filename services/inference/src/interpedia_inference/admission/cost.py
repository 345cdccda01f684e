"""What a request will take, estimated before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interpedia_engine.hooks import ModelShape, hook_width
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.saes.base import SAE
from interpedia_inference.compute.contract import (
    AllFeatures,
    DirectionValues,
    FeatureColumns,
    ReadJob,
    hook_of,
)

_FLOAT = 4
_TRIPLE = 20
"""Bytes of one sparse activation: two int64 and a float32."""
_GUESSED_ACTIVE = 256
"""Active features of a token of an SAE that does not say how many there are."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate: `tokens` of work, `bytes` of memory while it runs."""

    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.bytes + other.bytes)


def reading_cost(shape: ModelShape, jobs: Sequence[ReadJob]) -> Cost:
    """Of texts that are read: what is captured, and what is encoded of it."""
    tokens = sum(len(job.token_ids) for job in jobs)
    return Cost(tokens, sum(len(job.token_ids) * _bytes_per_token(shape, job) for job in jobs))


def generation_cost(model: LanguageModel, *, prompt_tokens: int, new_tokens: int, rows: int) -> Cost:
    """Of outputs that are generated from one prompt: each keeps keys and values of all its positions."""
    config: Any = model.hf.config
    heads = int(getattr(config, "num_key_value_heads", None) or model.shape.n_heads)
    per_token = 2 * model.shape.n_layers * heads * model.shape.d_head * model.dtype.itemsize
    positions = rows * (prompt_tokens + new_tokens)
    return Cost(positions, positions * per_token + rows * model.shape.d_vocab * 2 * _FLOAT)


def active_per_token(sae: SAE) -> int:
    """Non-zero activations to expect of one token."""
    if sae.cfg.architecture == "identity":
        return sae.d_sae
    return min(sae.d_sae, sae.cfg.k or _GUESSED_ACTIVE)


def _bytes_per_token(shape: ModelShape, job: ReadJob) -> int:
    captured = sum(hook_width(hook, shape) for hook in {hook_of(one) for one in job.readings}) * _FLOAT
    for reading in job.readings:
        if isinstance(reading, FeatureColumns):
            captured += 2 * len(reading.features) * _FLOAT
        elif isinstance(reading, AllFeatures):
            captured += active_per_token(reading.sae.sae) * _TRIPLE
        elif isinstance(reading, DirectionValues):
            captured += _FLOAT
        else:
            captured += hook_width(reading.hook, shape) * _FLOAT
    return captured
