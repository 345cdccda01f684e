"""Tokens that explaining and scoring one feature takes, counted on its questions; nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import Explainer, How
from interpedia_autointerp.llm import AnyRequest, LLMRequest
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.method import Scorer
from interpedia_autointerp.scorers.running import expected_requests

Count = Callable[[str], int]
"""Tokens of a text, by the tokenizer of the endpoint's model or by a rule of thumb."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Tokens of some calls; `tokens_out` is of the shortest complete answers, without reasoning."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: TokenCost) -> TokenCost:
        """Both together."""
        return TokenCost(
            self.calls + other.calls, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def __mul__(self, times: int) -> TokenCost:
        """So many times the same."""
        return TokenCost(self.calls * times, self.tokens_in * times, self.tokens_out * times)


def by_characters(text: str) -> int:
    """3.5 characters to a token: a little much for English in most vocabularies."""
    return round(len(text) / 3.5)


def feature_cost(
    task: Task,
    explainer: tuple[Explainer, How],
    scorers: Mapping[Scorer, How],
    hypothesis: Hypothesis,
    *,
    count: Count = by_characters,
) -> dict[str, TokenCost]:
    """Of one explanation and its scores: a row for `explain` and for each scorer, by name.

    The shuffled baseline costs what its scorer's row says once more; it is not in there.

    Args:
        task: the feature's material.
        explainer: the one method and how.
        scorers: all that score it.
        hypothesis: stands in for the explanation that is made.
        count: of tokens.

    Raises:
        NotReady: the task has too little material.
    """
    method, how = explainer
    answer = json.dumps({**hypothesis.to_json(), "explanation": hypothesis.text})
    rows = {"explain": _cost(method.plan(task, how), count, lambda _: answer)}
    for scorer, each in scorers.items():
        rows[scorer.name] = _cost(expected_requests(scorer, task, hypothesis, each), count, _verdicts)
    return rows


def _cost(requests: Sequence[AnyRequest], count: Count, answer: Callable[[AnyRequest], str]) -> TokenCost:
    said = sum(count(answer(request)) for request in requests)
    return TokenCost(len(requests), sum(count(_asked(request)) for request in requests), said)


def _asked(request: AnyRequest) -> str:
    if isinstance(request, LLMRequest):
        return "".join(message.content for message in request.messages)
    return request.text


def _verdicts(request: AnyRequest) -> str:
    if not isinstance(request, LLMRequest):
        return ""
    labels = () if request.output is None else request.output.ids
    verdicts = [{"id": label, "verdict": "no"} for label in labels]
    return json.dumps({"verdicts": verdicts}, separators=(",", ":")) if verdicts else "Yes"
