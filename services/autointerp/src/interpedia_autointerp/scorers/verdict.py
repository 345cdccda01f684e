"""One judgement of one item, and the numbers that are made of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Subject = Literal["explanation", "shuffled"]
"""Whose text was judged: the feature's own, or for the baseline another feature's."""
State = Literal["ok", "abstained", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of table `verdict`.

    Attributes:
        item: what was judged: a window's id, with a suffix where a scorer shows it in several ways.
        stratum: of the item.
        truth: whether the item is a true case; None where there is no truth (steered texts).
        verdict, probability: of the judge; None unless `state` is ok. `probability` is any number that
            orders the items, from 0 to 1 where it is a probability.
        values: the predicted activation at each token, for scorers that predict them. Not stored: the
            answers that they were read from are.
        reason: why it failed.
    """

    scorer: str
    subject: Subject
    item: str
    stratum: str
    truth: bool | None
    state: State = "ok"
    verdict: bool | None = None
    probability: float | None = None
    values: tuple[float, ...] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreValue:
    """One row of table `score`. Never a value without n, interval, judge and split hash.

    Attributes:
        metric: what `value` is.
        stratum: the part of the items it is over: `all`, `interval 5`, `same_token`, …
        status: `ok`; `failed`: too many answers failed for a number to mean anything; `insufficient`: not
            enough items; `undefined`: the metric does not exist for these items. Only `ok` has a value.
        baseline: the same number for another feature's explanation.
        judge: endpoint and model, or the encoder; None for executed rules.
    """

    scorer: str
    metric: str
    stratum: str
    status: Literal["ok", "failed", "insufficient", "undefined"]
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_failed: int
    n_abstained: int
    baseline: float | None
    judge: str | None
    split_hash: str
    is_headline: bool = False
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
