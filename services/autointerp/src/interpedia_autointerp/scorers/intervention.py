"""Intervention: turn the feature up and let a judge say whether what is written shows the explanation.

A claim about the output, and never to be mixed with scores about the input.
Source: faithfulness of Puri et al. (2025), FADE: (max p(f) − p(0)) / (1 − p(0)). Here the strength is chosen
on one half of the prompts and the number comes from the other half, and it may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.explainers.params import params_of, settled
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.judging import (
    Item,
    JudgeParams,
    batches,
    check_subject,
    read_verdicts,
    verdict_ask,
)
from interpedia_autointerp.scorers.method import Ask, Basis, Needs, Refused, Round, Scorer, SteerAsk
from interpedia_autointerp.scorers.prompts import EFFECT
from interpedia_autointerp.scorers.tally import MAX_FAILED_SHARE, MIN_ITEMS, failures
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict
from interpedia_autointerp.statistics import Interval, draw_weights, percentiles, wilson

OPENINGS: tuple[str, ...] = (
    "I opened the letter and read",
    "The report begins with",
    "Yesterday we talked about",
    "There is one thing that",
    "When they arrived,",
    "My neighbour told me that",
    "The next chapter is about",
    "It was not clear why",
    "Here is what I found:",
    "In the end,",
    "Most people think that",
    "After a while she said",
)
"""Beginnings that suggest nothing."""


class InterventionParams(JudgeParams):
    """Of `intervention`."""

    strengths: tuple[float, ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, max_length=8, description="In units of the feature's maximum."
    )
    n_prompts: int = Field(default=12, ge=2, le=len(OPENINGS))
    max_new_tokens: int = Field(default=24, ge=4, le=200)

    @field_validator("strengths")
    @classmethod
    def _each_changes_something(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in value or len(set(value)) != len(value):
            raise ValueError("strengths differ from 0 and from one another")
        return value


class Intervention(Scorer):
    """Does turning it up make the model write what the explanation says?"""

    name = "intervention"
    version = "1"
    summary = "Steers the model with the feature; a judge says whether the texts show the explanation."
    prompt: Prompt | None = EFFECT
    params_model: type[Params] = InterventionParams

    @override
    def needs(self, how: How) -> Needs:
        """A judge and the live model."""
        return Needs(endpoint=("chat",), steering=True)

    @override
    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """First the texts, the same for every explanation; then their judgement."""
        check_subject(task, hypothesis)
        how = settled(InterventionParams, how)
        params: InterventionParams = how.params
        if not done:
            prompts, strengths = zip(*_grid(params), strict=True)
            return [SteerAsk(prompts, strengths, params.max_new_tokens, how.seed)]
        if len(done) > 1 or isinstance(done[0].answers[0], Refused):
            return []
        items = [item for item in _items(params, done) if item.data["text"].strip()]
        return [
            verdict_ask(EFFECT, hypothesis, batch, how, extra={})
            for batch in batches(items, params.per_call, how.seed)
        ]

    @override
    def parse(
        self,
        task: Task,
        hypothesis: Hypothesis,
        how: How,
        *,
        done: Sequence[Round],
        subject: Subject,
    ) -> list[Verdict]:
        """One verdict for every text; there is no truth to it."""
        return read_verdicts(
            self.name, subject, _items(params_of(InterventionParams, how), done), done=done[1:]
        )

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """The effect at the strength chosen on the other half of the prompts; then the share at each."""
        own, other = _Shares.of(basis.verdicts), _Shares.of(basis.baseline, is_baseline=True)
        return [
            _headline(self.name, basis, own, other),
            *(_share_score(self.name, basis, own, other, column) for column in range(len(own.strengths))),
        ]


def _grid(params: InterventionParams) -> list[tuple[str, float]]:
    strengths = (0.0, *params.strengths)
    return [(prompt, strength) for prompt in OPENINGS[: params.n_prompts] for strength in strengths]


def _items(params: InterventionParams, done: Sequence[Round]) -> list[Item]:
    answer = done[0].answers[0] if done else None
    grid = _grid(params)
    texts = answer if isinstance(answer, list) else [""] * len(grid)
    return [
        Item(_item_id(prompt, strength), _stratum(strength), None, {"text": text})
        for (prompt, strength), text in zip(grid, texts, strict=True)
    ]


def _item_id(prompt: str, strength: float) -> str:
    return f"opening {OPENINGS.index(prompt)}/{strength:g}"


def _stratum(strength: float) -> str:
    return f"strength {strength:g}"


@dataclass(frozen=True)
class _Shares:
    """Credit of every text, by prompt and strength.

    Failed texts show nothing when steered and all when not; for the baseline it is the other way round.
    """

    strengths: tuple[str, ...]
    shown: NDArray[np.float64]  # [prompts, strengths], the unsteered first
    n_failed: int
    n_abstained: int

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], *, is_baseline: bool = False) -> _Shares:
        strengths = tuple(dict.fromkeys(v.stratum for v in verdicts))
        prompts = tuple(dict.fromkeys(v.item.partition("/")[0] for v in verdicts))
        shown = np.zeros((len(prompts), len(strengths)))
        for verdict in verdicts:
            row, column = prompts.index(verdict.item.partition("/")[0]), strengths.index(verdict.stratum)
            shown[row, column] = _credit(verdict, is_baseline)
        failed = sum(v.state == "failed" for v in verdicts)
        return cls(strengths, shown, failed, sum(v.state == "abstained" for v in verdicts))

    @property
    def status(self) -> Literal["ok", "failed", "insufficient"]:
        if len(self.shown) < 2 * MIN_ITEMS:
            return "insufficient"
        return "failed" if self.n_failed > MAX_FAILED_SHARE * self.shown.size else "ok"

    @property
    def best(self) -> int:
        """Column of the strength that shows most on the even prompts."""
        return 1 + int(self.shown[::2, 1:].mean(axis=0).argmax())


def _credit(verdict: Verdict, is_baseline: bool) -> float:
    if verdict.state == "ok":
        return float(bool(verdict.verdict))
    if verdict.state == "abstained":
        return 0.0
    return float((verdict.stratum == _stratum(0.0)) != is_baseline)


def _effect(shares: _Shares) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """(p(f) − p(0)) / (1 − p(0)) on the odd prompts; 0 where the unsteered texts all show it."""
    steered, plain = shares.shown[1::2, shares.best], shares.shown[1::2, 0]

    def of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        n = weights.sum(axis=1)
        p, p0 = weights @ steered / n, weights @ plain / n
        return np.divide(p - p0, 1 - p0, out=np.zeros_like(p), where=p0 < 1)

    return of


def _floor(shares: _Shares, value: float) -> Interval:
    """From the Wilson intervals of both shares, at their worst and best."""
    n = len(shares.shown[1::2])
    high_p = wilson(float(shares.shown[1::2, shares.best].sum()), n) or Interval(0, 1)
    low_p = wilson(float(shares.shown[1::2, 0].sum()), n) or Interval(0, 1)
    low = (high_p.low - low_p.high) / (1 - low_p.high) if low_p.high < 1 else -math.inf
    high = (high_p.high - low_p.low) / (1 - low_p.low) if low_p.low < 1 else value
    return Interval(max(-1.0, min(low, value)), min(1.0, max(high, value)))


def _headline(scorer: str, basis: Basis, own: _Shares, other: _Shares) -> ScoreValue:
    value = interval = None
    reasons = failures(basis.verdicts)
    details: dict[str, object] = {"failures": reasons} if reasons else {}
    if own.status == "ok":
        statistic = _effect(own)
        n = len(own.shown[1::2])
        value = float(statistic(np.ones((1, n)))[0])
        drawn = percentiles(statistic(draw_weights(["prompt"] * n, seed=basis.seed))) or Interval(
            value, value
        )
        floor = _floor(own, value)
        interval = Interval(min(drawn.low, floor.low), max(drawn.high, floor.high))
        details["strength"] = own.strengths[own.best]
    baseline = None
    if other.status == "ok":
        baseline = float(_effect(other)(np.ones((1, len(other.shown[1::2]))))[0])
    return ScoreValue(
        scorer=scorer,
        metric="effect",
        stratum="all",
        status=own.status,
        value=value,
        ci_low=None if interval is None else interval.low,
        ci_high=None if interval is None else interval.high,
        n=len(basis.verdicts),
        n_failed=own.n_failed,
        n_abstained=own.n_abstained,
        baseline=baseline,
        judge=basis.judge,
        split_hash=basis.task.split_hash,
        is_headline=True,
        details=details,
    )


def _share_score(scorer: str, basis: Basis, own: _Shares, other: _Shares, column: int) -> ScoreValue:
    stratum = own.strengths[column]
    members = [v for v in basis.verdicts if v.stratum == stratum]
    shown = own.shown[:, column]
    is_ok = own.status == "ok"
    interval = wilson(float(shown.sum()), len(shown)) if is_ok else None
    has_baseline = other.status == "ok" and stratum in other.strengths
    return ScoreValue(
        scorer=scorer,
        metric="share_shown",
        stratum=stratum,
        status=own.status,
        value=float(shown.mean()) if is_ok else None,
        ci_low=None if interval is None else interval.low,
        ci_high=None if interval is None else interval.high,
        n=len(members),
        n_failed=sum(v.state == "failed" for v in members),
        n_abstained=sum(v.state == "abstained" for v in members),
        baseline=float(other.shown[:, other.strengths.index(stratum)].mean()) if has_baseline else None,
        judge=basis.judge,
        split_hash=basis.task.split_hash,
    )
