"""Surprisal: does knowing the explanation make the windows on which it fires more likely?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.llm import LLMAnswer, PromptScoreRequest
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.material.window import Window
from interpedia_autointerp.scorers.judging import check_subject
from interpedia_autointerp.scorers.method import Ask, Basis, LLMAsk, Needs, Refused, Round, Scorer
from interpedia_autointerp.scorers.metrics import AUROC, AVERAGE_PRECISION
from interpedia_autointerp.scorers.offsets import NotAligned, tokens_from
from interpedia_autointerp.scorers.strata import strata_scores
from interpedia_autointerp.scorers.tally import scores_of
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict

_HEAD = "Each entry has a description and a text that was chosen because the description fits it.\n\n"
_NEUTRAL = "a piece of text of any kind"
SURPRISAL = Prompt("surprisal", "1", _HEAD + _NEUTRAL)


class Surprisal(Scorer):
    """Log-likelihood of a window with the explanation, less that with a neutral description."""

    name = "surprisal"
    version = "1"
    summary = "Does the explanation make the right windows likelier? Needs prompt logprobs."
    prompt: Prompt | None = SURPRISAL
    params_model: type[Params] = Params

    @override
    def needs(self, how: How) -> Needs:
        """Prompt logprobs."""
        return Needs(endpoint=("prompt_logprobs",))

    @override
    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """One round; the neutral half is the same for all explanations, and paid for once."""
        check_subject(task, hypothesis)
        if done:
            return []
        return [
            LLMAsk(
                PromptScoreRequest(
                    surprisal_text(description, window)[0],
                    endpoint=how.endpoint,
                    top_logprobs=1,
                    repeat=how.repeat,
                ),
                (window.id,),
            )
            for window in task.of("test")
            for description in (_NEUTRAL, hypothesis.text)
        ]

    @override
    def parse(
        self, task: Task, hypothesis: Hypothesis, how: How, *, done: Sequence[Round], subject: Subject
    ) -> list[Verdict]:
        """One difference for every window, in nats per token."""
        answers = done[0].answers if done else ()
        verdicts: list[Verdict] = []
        for number, window in enumerate(task.of("test")):
            base = Verdict(self.name, subject, window.id, window.stratum, window.fires)
            try:
                neutral, told = (
                    _likelihood(answer, description, window)
                    for answer, description in zip(
                        answers[2 * number : 2 * number + 2], (_NEUTRAL, hypothesis.text), strict=True
                    )
                )
            except NotAligned as error:
                verdicts.append(replace(base, state="failed", reason=str(error)))
            except ValueError:
                verdicts.append(replace(base, state="failed", reason="not asked"))
            else:
                verdicts.append(replace(base, probability=told - neutral))
        return verdicts

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """How well the difference sorts the windows."""
        metrics = [replace(AUROC, is_headline=True), AVERAGE_PRECISION]
        return [*scores_of(self.name, metrics, basis), *strata_scores(self.name, basis, "auroc")]


def surprisal_text(description: str, window: Window) -> tuple[str, int]:
    """The text whose likelihood is asked for, and where in it the window starts."""
    head = f"{_HEAD}Description: {as_data(description)}\nText: "
    return head + window.text, len(head)


def _likelihood(answer: object, description: str, window: Window) -> float:
    """Mean logprob of the window's tokens."""
    if isinstance(answer, Refused):
        raise NotAligned(answer.reason)
    if not isinstance(answer, LLMAnswer):
        raise NotAligned("not asked")
    if answer.failure is not None:
        raise NotAligned(answer.failure.kind)
    text, start = surprisal_text(description, window)
    known = [t.logprob for t in tokens_from(answer.prompt_logprobs, text, start) if t.logprob is not None]
    if not known:
        raise NotAligned("no logprobs")
    mean = sum(known) / len(known)
    if not math.isfinite(mean):
        raise NotAligned("a logprob that is no number")
    return mean
