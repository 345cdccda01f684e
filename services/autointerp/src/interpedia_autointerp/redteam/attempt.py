"""A text to try, and what the feature did on it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from interpedia_autointerp.material import Trace

Intent = Literal["should_fire", "should_not_fire", "control"]
State = Literal["new", "ok", "off_intent", "failed"]
"""`off_intent`: its writer missed the hypothesis, a judge says; it counts neither for it nor against it."""

LLM, CORPUS = "llm", "corpus"
HIT = 0.25
"""Quantile of the feature's own examples from which on a text counts as firing it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One text.

    Attributes:
        kind: of attack: `varied`, `paraphrase`, `pair`, `trap`, `own`, `kept`, `control`.
        author: `llm`, `corpus`, or a person's account.
        pair: texts of one number differ in the property only.
        token_ids: run as they are instead of the text.
        max: largest activation, by magnitude.
        quantile: share of the feature's own examples with a smaller maximum; 0 when it is silent.
    """

    text: str
    intent: Intent
    kind: str
    author: str
    pair: int | None = None
    token_ids: tuple[int, ...] = ()
    state: State = "new"
    tokens: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    max: float | None = None
    quantile: float | None = None
    reason: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it says anything about the hypothesis."""
        return self.state == "ok" and self.max is not None

    @property
    def hits(self) -> bool:
        """Whether the feature fires on it as it does on its own examples."""
        return self.quantile is not None and self.quantile >= HIT

    def ran(self, trace: Trace, maxima: Sequence[float]) -> Attempt:
        """With what the feature did. `maxima`: of its own examples, ascending."""
        largest = max((abs(value) for value in trace.values), default=0.0)
        quantile = 0.0 if largest == 0 else bisect_left(maxima, largest) / len(maxima) if maxima else None
        return replace(
            self, state="ok", tokens=trace.tokens, values=trace.values, max=largest, quantile=quantile
        )
