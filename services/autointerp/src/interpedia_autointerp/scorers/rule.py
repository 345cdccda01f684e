"""The rule scorer: an explanation that can be run is run. No judge, no chance, no cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.explainers.params import ready
from interpedia_autointerp.explainers.rules import Rule
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.window import Window
from interpedia_autointerp.scorers.correlation import correlation_metrics
from interpedia_autointerp.scorers.method import Ask, Basis, Needs, Round, Scorer
from interpedia_autointerp.scorers.metrics import (
    AUROC,
    AVERAGE_PRECISION,
    BALANCED_ACCURACY,
    FPR,
    TPR,
    population_metrics,
)
from interpedia_autointerp.scorers.strata import strata_scores
from interpedia_autointerp.scorers.tally import scores_of
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict

_ANYTHING = 1e-12
"""Above what is silent."""


class NoRule(ValueError):
    """The explanation is prose only, which cannot be run."""


class RuleScorer(Scorer):
    """Runs the rule on every window."""

    name = "rule"
    version = "1"
    summary = "Runs explanations that are rules on the windows; no LLM."
    prompt: Prompt | None = None
    params_model: type[Params] = Params

    @override
    def needs(self, how: How) -> Needs:
        """A rule."""
        return Needs(rule=True)

    @override
    def plan(
        self,
        task: Task,
        hypothesis: Hypothesis,
        how: How,
        done: Sequence[Round] = (),
    ) -> list[Ask]:
        """Nothing to ask."""
        ready(task)
        _rule(hypothesis)
        return []

    @override
    def parse(
        self,
        task: Task,
        hypothesis: Hypothesis,
        how: How,
        *,
        done: Sequence[Round] = (),
        subject: Subject,
    ) -> list[Verdict]:
        """What the rule says; it fires from the value on that sorts the windows of the other splits best."""
        rule = _rule(hypothesis)
        threshold = best_threshold(rule, [*task.of("explain"), *task.of("validate")])
        verdicts: list[Verdict] = []
        for window in task.of("test"):
            values = rule.predict(window.pieces)
            verdicts.append(
                Verdict(
                    self.name,
                    subject,
                    window.id,
                    window.stratum,
                    window.fires,
                    verdict=max(values) >= threshold,
                    probability=max(values),
                    values=values,
                )
            )
        return verdicts

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """As for detection; and the correlation over tokens."""
        density = basis.task.population.window_density
        metrics = [replace(BALANCED_ACCURACY, is_headline=True), TPR, FPR]
        metrics += [*population_metrics(density), AUROC, AVERAGE_PRECISION]
        metrics += correlation_metrics(basis.task)
        details = {"window_density": density}
        return [*scores_of(self.name, metrics, basis, details=details), *strata_scores(self.name, basis)]


def _rule(hypothesis: Hypothesis) -> Rule:
    if hypothesis.rule is None:
        raise NoRule("the explanation has no rule that could be run")
    return hypothesis.rule


def best_threshold(rule: Rule, windows: Sequence[Window]) -> float:
    """The least value that counts as firing: of those that occur, the one with the best balanced accuracy.

    Of equals the lowest. A rule that is silent on all of them fires where it predicts anything at all.
    """
    maxima = [(max(rule.predict(window.pieces)), window.fires) for window in windows]
    n_true = sum(fires for _, fires in maxima)
    n_false = len(maxima) - n_true
    candidates = sorted({value for value, _ in maxima if value > 0})
    if not candidates:
        return _ANYTHING

    def quality(threshold: float) -> float:
        hits = sum(fires for value, fires in maxima if value >= threshold)
        alarms = sum(not fires for value, fires in maxima if value >= threshold)
        return hits / max(1, n_true) - alarms / max(1, n_false)

    return max(candidates, key=lambda each: (quality(each), -each))
