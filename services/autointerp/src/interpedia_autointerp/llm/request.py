"""What is asked of an LLM, before any endpoint's dialect; and the hash under which it is paid for once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from interpedia_autointerp.llm.schema import check_schema
from interpedia_autointerp.llm.settings import DEFAULT_ENDPOINT

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class JSONFormat:
    """The answer is to be one JSON object.

    Attributes:
        name: of the schema, `[a-zA-Z0-9_-]{1,64}`.
        schema: strict: every property required, `additionalProperties` false. Checked here too, whatever the
            endpoint promises. Its keywords are those that `schema.py` knows; others are refused.
        ids: the items asked about. Each must be answered once in the list `ids_in` by an object with `id`;
            the answer tells which were missing, unknown or answered in two ways.
        ids_in: the property that holds that list.
    """

    name: str
    schema: Mapping[str, Any]
    ids: tuple[str, ...] = ()
    ids_in: str = "verdicts"

    def __post_init__(self) -> None:
        check_schema(self.schema)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer is drawn. What the endpoint does not take is left out, and the answer says so.

    Attributes:
        max_tokens: most tokens of the answer, reasoning included.
        temperature: 0 for the likeliest answer.
        seed: for endpoints that take one.
        top_logprobs: alternatives wanted with each generated token; 0 for no logprobs at all.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """One chat question.

    Attributes:
        messages: the constant part first, the data last, so that endpoints can cache the prefix.
        endpoint: its name in the settings.
        output: None for free text.
        repeat: number of the draw. Another number is another call, for judging a judge's noise and for
            asking again what was answered unusably.
        allow_repair: ask once more, with the bad answer shown, when the format is wrong.
        allow_cut: an answer that ends at `max_tokens` is as good, as for verdicts of one token.
    """

    messages: tuple[Message, ...]
    endpoint: str = DEFAULT_ENDPOINT
    output: JSONFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)
    repeat: int = 0
    allow_repair: bool = False
    allow_cut: bool = False

    @property
    def max_tokens(self) -> int:
        """Most tokens that the answer may have."""
        return self.sampling.max_tokens

    def texts(self) -> tuple[str, ...]:
        """Everything that the endpoint reads, for estimates."""
        return tuple(message.content for message in self.messages)

    def canonical(self) -> dict[str, Any]:
        """All that decides the answer but the endpoint, as JSON. Its name and the `allow_`s are no part."""
        output = self.output
        return {
            "kind": "chat",
            "messages": [{"role": m.role, "content": clean(m.content)} for m in self.messages],
            "output": None if output is None else {"name": output.name, "schema": output.schema},
            "sampling": {
                "max_tokens": self.sampling.max_tokens,
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "seed": self.sampling.seed,
                "top_logprobs": self.sampling.top_logprobs,
            },
            "repeat": self.repeat,
        }


@dataclass(frozen=True, slots=True)
class PromptScoreRequest:
    """Logprobs of a given text under the model; nothing is generated. Needs `prompt_logprobs`.

    Attributes:
        text: raw, without a chat template.
        top_logprobs: alternatives wanted with each token.
    """

    text: str
    endpoint: str = DEFAULT_ENDPOINT
    top_logprobs: int = 5
    repeat: int = 0

    @property
    def max_tokens(self) -> int:
        """Some endpoints always generate one token."""
        return 1

    def texts(self) -> tuple[str, ...]:
        """Everything that the endpoint reads, for estimates."""
        return (self.text,)

    def canonical(self) -> dict[str, Any]:
        """All that decides the answer but the endpoint, as JSON."""
        return {
            "kind": "prompt_score",
            "text": clean(self.text),
            "top_logprobs": self.top_logprobs,
            "repeat": self.repeat,
        }


AnyRequest = LLMRequest | PromptScoreRequest


def clean(text: str) -> str:
    """The text without what neither UTF-8 nor Postgres can carry: lone surrogates and NUL."""
    if "\x00" in text:
        text = text.replace("\x00", "\u2400")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def request_hash(base_url: str, model: str, canonical: Mapping[str, Any]) -> str:
    """SHA-256 of endpoint, model and request as canonical JSON: the same question, the same hash."""
    whole = {"base_url": base_url, "model": model, "request": canonical}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
