"""What came back: the text, what could be read from it, what it cost; or why it is of no use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FailureKind = Literal[
    "length",  # cut at max_tokens
    "refusal",  # the model declined
    "content_filter",  # the endpoint withheld the answer
    "empty",  # nothing was said
    "no_json",  # text without any JSON
    "cut_json",  # JSON that ends too early, although the endpoint calls the answer complete
    "schema",  # JSON of another form than asked for
    "wrong_ids",  # none of the items asked about was answered
    "malformed",  # no answer in the API's own form, or without the logprobs that were asked for
    "rejected",  # the endpoint refuses this request (400, 413, 422), as for a prompt over its context
    "endpoint",  # errors or timeouts, as often as it was tried
]
"""Why an answer is of no use. Scorers count such an answer as failed; they never drop it."""

OutputMode = Literal["json_schema", "json_object", "text"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an answer is of no use; `detail` is one sentence for people."""

    kind: FailureKind
    detail: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `is_estimated` where the endpoint did not say."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    is_estimated: bool = False

    @property
    def total(self) -> int:
        """What counts against a cap in tokens."""
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of the judge's own tokenizer.

    Attributes:
        text: as the endpoint spells it.
        logprob: natural logarithm; None for a first prompt token, which nothing precedes.
        top: the likeliest tokens at this place, text to logprob.
    """

    text: str
    logprob: float | None
    top: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class LLMAnswer:
    """The answer to one request, useful or not.

    Attributes:
        call_id: row in `llm_call`.
        text: what the model said, reasoning stripped; empty for prompt scores.
        data: the JSON object, where one was asked for and is as asked.
        failure: None when the answer can be used.
        logprobs: of the generated tokens. Under a grammar they are those of the free distribution and may
            hold tokens that are not in `text`: align by text.
        prompt_logprobs: of the given text.
        missing_ids, unknown_ids, repeated_ids: what was not answered; answered unasked; answered in two ways.
            Missing and repeated ones have failed, each for itself.
        usage, cost_micro: of this request, repair included, also when it was paid for earlier.
        is_cached: the answer was there already and nothing was paid now.
        is_repaired: a second call was made because the first answer's format was wrong.
        left_out: sampling parameters that the endpoint does not take.
    """

    request_hash: str
    call_id: int | None = None
    text: str = ""
    data: Any = None
    failure: Failure | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    missing_ids: tuple[str, ...] = ()
    unknown_ids: tuple[str, ...] = ()
    repeated_ids: tuple[str, ...] = ()
    finish_reason: str | None = None
    output_mode: OutputMode | None = None
    reported_model: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro: int = 0
    is_cached: bool = False
    is_repaired: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """The answer can be used, if only for some of the ids."""
        return self.failure is None

    def items_by_id(self, list_name: str = "verdicts") -> dict[str, Mapping[str, Any]]:
        """The answered items by id; unknown ones and those answered in two ways are not among them."""
        if self.failure is not None or not isinstance(self.data, dict):
            return {}
        unusable = {*self.unknown_ids, *self.repeated_ids}
        return {str(item["id"]): item for item in self.data[list_name] if str(item["id"]) not in unusable}
