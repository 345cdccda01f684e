"""What every explainer is: a plan of requests, and a reading of their answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.llm import LLMAnswer, LLMRequest, Need
from interpedia_autointerp.material.task import Task


class Params(BaseModel):
    """Parameters of a method; its JSON schema is what `GET /v1/methods` shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class How:
    """How a method is to run.

    Attributes:
        params: of the method's `params_model`, or a mapping of them.
        endpoint: the LLM's name in the settings; unused by methods without one.
        repeat: another number asks anew what was answered unusably.
    """

    params: Any = None
    endpoint: str = "default"
    seed: int = 0
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """The constant part of a question; its hash goes into a run's provenance."""

    name: str
    version: str
    system: str
    shots: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """Of all that is constant."""
        whole = [self.name, self.version, self.system, self.shots]
        return hashlib.sha256(json.dumps(whole, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Explained:
    """What came of explaining one feature: hypotheses, and a sentence for each answer that was of no use.

    No hypothesis and no failure does not happen.
    """

    hypotheses: tuple[Hypothesis, ...] = ()
    failures: tuple[str, ...] = field(default_factory=tuple)


class Explainer(Protocol):
    """Stateless; takes the task's `explain` split only.

    `plan` is empty for explainers without an LLM, and `parse(task, how, [])` gives their result.
    """

    name: str
    version: str
    summary: str
    prompt: Prompt | None
    params_model: type[Params]

    def needs(self, how: How) -> tuple[Need, ...]:
        """What the endpoint must be capable of; empty when no endpoint is needed."""
        ...

    def plan(self, task: Task, how: How) -> list[LLMRequest]:
        """The questions. Ask all features' at once.

        Raises:
            ValueError: the task's status is not ok.
        """
        ...

    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """Read the answers, in the order of the plan."""
        ...


__all__ = ["Explained", "Explainer", "How", "Params", "Prompt"]
