"""What is asked of the decoder, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from interpedia_engine.errors import EngineError, OutOfRange
from interpedia_engine.interventions.changes import Change

FinishReason = Literal["length", "end_token", "error"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The order is: penalties, temperature, top-k, top-p, min-p, draw.

    Source: the definitions of transformers' logits processors, whose parity is tested; frequency and presence
    penalties as OpenAI's API defines them.
    """

    temperature: float = 1.0
    """0 (anything below 1e-6) takes the most probable token (after penalties)."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 = all."""
    top_p: float = 1.0
    """Keep the most probable tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep tokens at least this probable relative to the most probable one."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for every time it was generated."""
    presence_penalty: float = 0.0
    """Subtracted from a token's logit once it was generated."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the prompt or generated."""
    seed: int = 0
    """Each row draws from a generator of its own: its batch mates never change a draw."""
    n_logprobs: int = 0
    """Most probable tokens reported at each step."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("temperature", 0.0, math.inf),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("frequency_penalty", -math.inf, math.inf),
            ("presence_penalty", -math.inf, math.inf),
            ("repetition_penalty", 0.0, math.inf),
            ("top_k", 0, math.inf),
            ("seed", 0, 2**63 - 1),
            ("n_logprobs", 0, math.inf),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and lowest <= value <= highest):
                raise OutOfRange(name, f"{value} is outside {lowest}..{highest}, or not finite")
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise OutOfRange(name, "must be above 0")


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One row: a prompt, what is changed while it runs, and how it goes on."""

    prompt: tuple[int, ...]
    """Token ids, BOS included where it is wanted. At least one."""
    max_new_tokens: int
    changes: tuple[Change, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    eos_ids: tuple[int, ...] = ()
    """Ids that end the text (`LanguageModel.eos_ids`); none: it goes on to `max_new_tokens`."""
    protected: frozenset[int] = field(default_factory=frozenset[int])
    """Prompt positions that change only when named by number (special tokens of a chat). A BOS at position 0
    is always among them."""

    @property
    def n_tokens(self) -> int:
        """Most tokens that the row may ever hold: what it reserves."""
        return len(self.prompt) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One new token of a row, or the end of a row that failed."""

    row: int
    """The id from `Decoder.admit`."""
    token_id: int | None
    """The end token itself when `finish` is `end_token`; None when it is `error`."""
    logprob: float
    """Under the model's own distribution (interventions included), before penalties, temperature, cut-offs;
    0 when there is no token."""
    top: tuple[tuple[int, float], ...] = ()
    """The `n_logprobs` most probable tokens of that distribution, best first: id and log-probability."""
    finish: FinishReason | None = None
    """Why this is the row's last event; the row has left the decoder already."""
    error: EngineError | None = None
    """With `finish` = `error`: e.g. an intervention so strong that the logits are not finite."""
