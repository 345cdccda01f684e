"""Detection: the judge reads texts and says in which of them the explanation has the feature fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.explainers.params import params_of, settled
from interpedia_autointerp.llm import LLMAnswer, LLMRequest, Message, Need, Sampling
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.scorers.judging import (
    Item,
    JudgeParams,
    Read,
    batches,
    check_subject,
    read_label,
    read_verdicts,
    verdict_ask,
)
from interpedia_autointerp.scorers.logprobs import yes_probability
from interpedia_autointerp.scorers.method import Ask, Basis, LLMAsk, Needs, Round, Scorer
from interpedia_autointerp.scorers.metrics import (
    AUROC,
    AVERAGE_PRECISION,
    BALANCED_ACCURACY,
    BRIER,
    FPR,
    TPR,
    population_metrics,
)
from interpedia_autointerp.scorers.prompts import DETECTION, DETECTION_ONE
from interpedia_autointerp.scorers.strata import strata_scores
from interpedia_autointerp.scorers.tally import scores_of
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict


class DetectionParams(JudgeParams):
    """Of `detection`."""

    calibrated: bool = Field(
        default=False,
        description="One window a question, answered Yes or No; the probability is read from the logprobs.",
    )


class Detection(Scorer):
    """Which windows does the explanation fit?"""

    name = "detection"
    version = "1"
    summary = "A judge says for every window whether the explanation fits it."
    prompt: Prompt | None = DETECTION
    params_model: type[Params] = DetectionParams

    @override
    def needs(self, how: How) -> Needs:
        """Chat; logprobs when calibrated."""
        is_calibrated = params_of(DetectionParams, how).calibrated
        needs: tuple[Need, ...] = ("chat", "chat_logprobs") if is_calibrated else ("chat",)
        return Needs(endpoint=needs)

    @override
    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """One round."""
        check_subject(task, hypothesis)
        if done:
            return []
        how = settled(DetectionParams, how)
        items = _items(task)
        if how.params.calibrated:
            return [_single(hypothesis, item, how) for item in items]
        return [
            verdict_ask(DETECTION, hypothesis, batch, how, extra={})
            for batch in batches(items, how.params.per_call, how.seed)
        ]

    @override
    def parse(
        self, task: Task, hypothesis: Hypothesis, how: How, *, done: Sequence[Round], subject: Subject
    ) -> list[Verdict]:
        """One verdict for every window of the test split."""
        params = params_of(DetectionParams, how)
        reading = _read_word if params.calibrated else read_label
        return read_verdicts(self.name, subject, _items(task), done=done, reading=reading)

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """Balanced accuracy, its parts, and what they come to in the corpus."""
        has_probabilities = any(v.probability is not None for v in basis.verdicts)
        population = basis.task.population
        metrics = [replace(BALANCED_ACCURACY, is_headline=True), TPR, FPR]
        metrics += population_metrics(population.window_density)
        metrics += [AUROC, AVERAGE_PRECISION, BRIER] if has_probabilities else []
        details = {"window_density": population.window_density}
        return [
            *scores_of(self.name, metrics, basis, details=details),
            *strata_scores(self.name, basis),
        ]


def _items(task: Task) -> list[Item]:
    return [Item(w.id, w.stratum, w.fires, {"text": w.text}) for w in task.of("test")]


def _single(hypothesis: Hypothesis, item: Item, how: How) -> LLMAsk:
    data = {"explanation": hypothesis.text, "windows": [{"id": "1", **item.data}]}
    request = LLMRequest(
        (Message("system", DETECTION_ONE.system), Message("user", as_data(data))),
        endpoint=how.endpoint,
        sampling=Sampling(max_tokens=4, seed=how.seed, top_logprobs=10),
        repeat=how.repeat,
        allow_cut=True,
    )
    return LLMAsk(request, (item.id,))


def _read_word(answer: LLMAnswer, label: str) -> Read:  # noqa: ARG001 there is one only
    if answer.failure is not None:
        return Read("failed", reason=answer.failure.kind)
    probability = yes_probability(answer.logprobs)
    if probability is None:
        return Read("failed", reason="neither Yes nor No")
    return Read("ok", probability > 0.5, probability)
