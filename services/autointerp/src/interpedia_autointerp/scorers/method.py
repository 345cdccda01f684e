"""What every scorer is: rounds of questions, a reading of answers to verdicts, and numbers from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.llm import AnyRequest, LLMAnswer, Need
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict


@dataclass(frozen=True, slots=True)
class LLMAsk:
    """A question to the endpoint. `items[i]` is what the label str(i + 1) in it stands for."""

    request: AnyRequest
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """Texts for the encoder."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SteerAsk:
    """Continuations wanted: of prompts[i] with strengths[i] times the feature's maximum."""

    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of an answer: the encoder or the model could not give one."""

    reason: str


Ask = LLMAsk | EmbedAsk | SteerAsk
Answer = LLMAnswer | NDArray[np.float32] | list[str] | Refused


@dataclass(frozen=True, slots=True)
class Round:
    """Questions that can be asked at once, with their answers once they are there."""

    asks: tuple[Ask, ...]
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be there for a scorer to run. What is missing is refused with the reason, up front."""

    endpoint: tuple[Need, ...] = ()
    embeddings: bool = False
    steering: bool = False
    rule: bool = False


@dataclass(frozen=True, slots=True)
class Basis:
    """What numbers are made from.

    Attributes:
        baseline: verdicts on the same items with the subject `shuffled`; empty when none were made.
        judge: for the record.
    """

    task: Task
    verdicts: Sequence[Verdict]
    baseline: Sequence[Verdict] = field(default_factory=list[Verdict])
    judge: str | None = None
    seed: int = 0


class Scorer(Protocol):
    """Stateless; judges the task's `test` split, which no explainer has seen, and no other."""

    name: str
    version: str
    summary: str
    prompt: Prompt | None
    params_model: type[Params]

    def needs(self, how: How) -> Needs:
        """What has to be there."""
        ...

    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """The next round of questions, after those in `done`; empty when there is nothing more to ask."""
        ...

    def parse(
        self, task: Task, hypothesis: Hypothesis, how: How, *, done: Sequence[Round], subject: Subject
    ) -> list[Verdict]:
        """One verdict for every item, also for those whose question failed."""
        ...

    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """The numbers; the headline first. Pure: stored verdicts give the same again."""
        ...
