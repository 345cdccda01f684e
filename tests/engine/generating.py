"""Running a decoder to its end, and transformers' own generation beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from interpedia_engine.generation import Decoder, GenerationRequest, Sampling, TokenEvent
from interpedia_engine.models import LanguageModel

GREEDY = Sampling(temperature=0.0)


def prompt_of(model: LanguageModel, text: str) -> tuple[int, ...]:
    return (model.bos_id or 1, *model.tokenize(text))


def run(decoder: Decoder, requests: Sequence[GenerationRequest]) -> list[list[TokenEvent]]:
    """Admit all at once, run until all are done, return the events of each."""
    events: dict[int, list[TokenEvent]] = {row: [] for row in decoder.admit(requests)}
    while decoder.n_rows:
        for event in decoder.step():
            events[event.row].append(event)
    return list(events.values())


def tokens_of(events: Sequence[TokenEvent]) -> list[int | None]:
    return [event.token_id for event in events]


def alone(model: LanguageModel, request: GenerationRequest) -> list[TokenEvent]:
    return run(Decoder(model, max_rows=1, max_total_tokens=512), [request])[0]


def hugging_face(
    model: LanguageModel, prompt: Sequence[int], max_new_tokens: int, **options: Any
) -> list[int]:
    """Greedy tokens by `generate`, unless options say otherwise."""
    tokens = torch.tensor([list(prompt)])
    arguments: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    with torch.no_grad():
        ids = model.hf.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_new_tokens, **arguments
        )
    return ids[0, len(prompt) :].tolist()
