"""Items put to a judge in batches, and its answers read back by id."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.explainers.params import ready
from interpedia_autointerp.llm import LLMAnswer, LLMRequest, Message, Sampling
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.scorers.method import LLMAsk, Refused, Round
from interpedia_autointerp.scorers.prompts import verdicts_format
from interpedia_autointerp.scorers.verdict import State, Subject, Verdict

MAX_JUDGED = 2_000
"""Characters of an explanation that a judge can be given."""
_TOKENS_PER_VERDICT = 24


class JudgeParams(Params):
    """Of every scorer that asks a judge for verdicts."""

    per_call: int = Field(default=25, ge=1, le=100, description="Most items in one question.")
    max_tokens: int = Field(
        default=300, ge=16, le=20_000, description="Of an answer, beyond the verdicts; reasoning included."
    )


@dataclass(frozen=True, slots=True)
class Item:
    """What is judged; `data` is what the judge sees of it."""

    id: str
    stratum: str
    truth: bool | None
    data: Mapping[str, Any]


class TooLong(ValueError):
    """The explanation is longer than a judge is given."""


def check_subject(task: Task, hypothesis: Hypothesis) -> None:
    """Return when the explanation can be judged on the task.

    Raises:
        NotReady: the feature is dead, or has too few examples.
        TooLong: the explanation has more than MAX_JUDGED characters.
    """
    ready(task)
    if len(hypothesis.text) > MAX_JUDGED:
        raise TooLong(f"the explanation has {len(hypothesis.text)} characters, {MAX_JUDGED} can be judged")


def batches(items: Sequence[Item], size: int, seed: int) -> Iterator[list[Item]]:
    """The items in an order that tells nothing, in batches of nearly one size."""
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    count = -(-len(shuffled) // size)
    for number in range(count):
        yield shuffled[number * len(shuffled) // count : (number + 1) * len(shuffled) // count]


def verdict_ask(
    prompt: Prompt, hypothesis: Hypothesis, batch: Sequence[Item], how: How, *, extra: Mapping[str, Any]
) -> LLMAsk:
    """One question about some items; labels are their numbers in it."""
    labels = tuple(str(number + 1) for number in range(len(batch)))
    windows = [{"id": label, **item.data} for label, item in zip(labels, batch, strict=True)]
    data = {"explanation": hypothesis.text, **extra, "windows": windows}
    request = LLMRequest(
        (Message("system", prompt.system), Message("user", as_data(data))),
        endpoint=how.endpoint,
        output=verdicts_format(labels),
        sampling=Sampling(how.params.max_tokens + _TOKENS_PER_VERDICT * len(batch), seed=how.seed),
        repeat=how.repeat,
        allow_repair=True,
    )
    return LLMAsk(request, tuple(item.id for item in batch))


Reading = Callable[[LLMAnswer, str], "Read"]


@dataclass(frozen=True, slots=True)
class Read:
    """What an answer says about one item."""

    state: State
    verdict: bool | None = None
    probability: float | None = None
    reason: str | None = None


def read_label(answer: LLMAnswer, label: str) -> Read:
    """The verdict on one label of a JSON answer."""
    if answer.failure is not None:
        return Read("failed", reason=answer.failure.kind)
    if label in answer.repeated_ids:
        return Read("failed", reason="answered in two ways")
    found = answer.items_by_id().get(label)
    if found is None:
        return Read("failed", reason="not answered")
    if found["verdict"] == "unsure":
        return Read("abstained")
    return Read("ok", found["verdict"] == "yes")


def read_verdicts(
    scorer: str,
    subject: Subject,
    items: Sequence[Item],
    *,
    done: Sequence[Round],
    reading: Reading = read_label,
) -> list[Verdict]:
    """A verdict for every item, in the items' order: also for those that no answer tells about."""
    found: dict[str, Read] = {}
    for ask, answer in _answered(done):
        for number, item_id in enumerate(ask.items):
            if isinstance(answer, Refused):
                found[item_id] = Read("failed", reason=answer.reason)
            else:
                found[item_id] = reading(answer, str(number + 1))
    missing = Read("failed", reason="not asked")
    return [_verdict(scorer, subject, item, found.get(item.id, missing)) for item in items]


def _verdict(scorer: str, subject: Subject, item: Item, read: Read) -> Verdict:
    return Verdict(
        scorer,
        subject,
        item.id,
        item.stratum,
        item.truth,
        state=read.state,
        verdict=read.verdict,
        probability=read.probability,
        reason=read.reason,
    )


def _answered(done: Sequence[Round]) -> Iterator[tuple[LLMAsk, LLMAnswer | Refused]]:
    for each in done:
        for ask, answer in zip(each.asks, each.answers, strict=True):
            if isinstance(ask, LLMAsk) and isinstance(answer, LLMAnswer | Refused):
                yield ask, answer
