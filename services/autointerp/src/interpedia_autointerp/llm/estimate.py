"""What a request will cost before it is sent, and what it did cost after."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from interpedia_autointerp.llm.answer import Usage
from interpedia_autointerp.llm.request import AnyRequest, LLMRequest, clean
from interpedia_autointerp.llm.settings import EndpointSettings

START_CHARACTERS_PER_TOKEN = 3.5
MARGIN = 1.2
TOKENS_PER_MESSAGE = 8
# For the bound: a template's own words and the sentence that asks for JSON; and the marks of each turn.
TEMPLATE_TOKENS, MARKS_PER_MESSAGE = 160, 16
# The start value counts as much as this many tokens of returned usage; what was seen long ago fades.
PRIOR_TOKENS = 2_000.0
MEMORY_TOKENS = 200_000.0
# Part of max_tokens that an answer uses, until answers have told.
START_FILL = 0.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests may cost: `low` by the averages seen so far, `high` the most that is reserved for them.

    Money is in millionths; None where the endpoint has no price.
    """

    calls: int = 0
    tokens_low: int = 0
    tokens_high: int = 0
    micro_low: int | None = 0
    micro_high: int | None = 0

    def __add__(self, other: Estimate) -> Estimate:
        """Both together; money is unknown when either is."""
        return Estimate(
            self.calls + other.calls,
            self.tokens_low + other.tokens_low,
            self.tokens_high + other.tokens_high,
            _sum(self.micro_low, other.micro_low),
            _sum(self.micro_high, other.micro_high),
        )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def text_units(text: str) -> float:
    """Characters; those outside ASCII count as a token each at the start ratio: they rarely share one."""
    plain = len(text.encode("ascii", "ignore"))
    return plain + (len(text) - plain) * START_CHARACTERS_PER_TOKEN


class TokenEstimator:
    """Characters per token of one endpoint, learned from the usage it returns."""

    def __init__(self) -> None:
        self._units = PRIOR_TOKENS * START_CHARACTERS_PER_TOKEN
        self._tokens = PRIOR_TOKENS
        self._out, self._out_cap = START_FILL * PRIOR_TOKENS, PRIOR_TOKENS

    @property
    def units_per_token(self) -> float:
        """The ratio as it stands."""
        return self._units / self._tokens

    def learn(self, request: AnyRequest, usage: Usage) -> None:
        """Take in what one answer says about its tokens."""
        if usage.is_estimated or usage.tokens_in <= 0:
            return
        if self._tokens > MEMORY_TOKENS:
            self._units, self._tokens = self._units / 2, self._tokens / 2
            self._out, self._out_cap = self._out / 2, self._out_cap / 2
        self._units += units_of(request)
        self._tokens += max(usage.tokens_in - _overhead(request), 1)
        self._out += usage.tokens_out
        self._out_cap += request.max_tokens

    def tokens_in(self, request: AnyRequest, *, margin: float = MARGIN) -> int:
        """Prompt tokens, with a margin for texts that split worse than the average."""
        return math.ceil(units_of(request) / self.units_per_token * margin) + _overhead(request)

    def tokens_of_text(self, text: str) -> int:
        """Tokens of a text that the endpoint wrote."""
        return math.ceil(text_units(text) / self.units_per_token * MARGIN)

    def likely_out(self, request: AnyRequest) -> int:
        """Tokens of the answer, if it is like those before."""
        return math.ceil(request.max_tokens * min(1.0, self._out / self._out_cap))


def units_of(request: AnyRequest) -> float:
    """The text of a request, its schema included: endpoints put that into the prompt."""
    schema = ""
    if isinstance(request, LLMRequest) and request.output is not None:
        schema = json.dumps(request.output.schema)
    return sum(map(text_units, request.texts())) + text_units(schema)


def _overhead(request: AnyRequest) -> int:
    return TOKENS_PER_MESSAGE * len(request.texts())


def cost_micro(settings: EndpointSettings, usage: Usage) -> int | None:
    """Money for these tokens in millionths, rounded up; None without a price.

    A price per million tokens in units of money is a price per token in millionths.
    """
    if settings.price_in is None or settings.price_out is None:
        return None
    cached_price = settings.price_in if settings.price_cached is None else settings.price_cached
    cached = min(usage.tokens_cached, usage.tokens_in)
    whole = (usage.tokens_in - cached) * settings.price_in + cached * cached_price
    # rounded before the ceiling: 3 × 0.1 is a little over 0.3 in binary
    return math.ceil(round(whole + usage.tokens_out * settings.price_out, 6))


def worst_case(request: AnyRequest) -> Usage:
    """What is reserved for a request: a token for each byte of its prompt, and the longest answer.

    No average is a bound: digits take a token each where prose takes one for four letters. Vocabularies that
    can write every text have no token of less than a byte.
    """
    texts = [*request.texts()]
    if isinstance(request, LLMRequest) and request.output is not None:
        texts.append(json.dumps(request.output.schema))
    size = sum(len(clean(text).encode()) for text in texts)
    overhead = TEMPLATE_TOKENS + MARKS_PER_MESSAGE * len(request.texts())
    return Usage(size + overhead, 0, request.max_tokens, is_estimated=True)


def estimate(
    settings: EndpointSettings, estimator: TokenEstimator, requests: Iterable[AnyRequest]
) -> Estimate:
    """What the requests may cost, none of them answered yet; a repair counts in `high`."""
    total = Estimate()
    for request in requests:
        high = worst_case(request)
        low = Usage(estimator.tokens_in(request, margin=1.0), 0, estimator.likely_out(request))
        times = 2 if isinstance(request, LLMRequest) and request.allow_repair else 1
        micro = cost_micro(settings, high)
        total += Estimate(
            1,
            low.total,
            times * high.total,
            cost_micro(settings, low),
            None if micro is None else times * micro,
        )
    return total
