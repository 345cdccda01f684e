"""The same number for every part of the items: strong and weak firing ones, each kind of silent ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.scorers.method import Basis
from interpedia_autointerp.scorers.tally import Statistic, Tally, tallies
from interpedia_autointerp.scorers.verdict import ScoreValue, Verdict
from interpedia_autointerp.statistics import Interval, percentiles, weighted, wilson

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class _Part:
    """A metric of the items that are marked."""

    metric: str
    of: Callable[[Tally, Marks], Statistic]

    def value(self, items: Tally, at: Marks) -> float | None:
        """None where it does not exist, and where numbers mean nothing."""
        if items.status != "ok" or not at.any():
            return None
        value = float(self.of(items, at)(np.ones((1, len(at))))[0])
        return None if np.isnan(value) else value

    def interval(self, items: Tally, at: Marks, value: float) -> Interval | None:
        """As of a share of so many items; wider where some are of one document and alike."""
        members = [d for d, is_in in zip(items.documents, at.tolist(), strict=True) if is_in]
        plain = wilson(value * len(members), len(members))
        if len(set(members)) == len(members):
            return plain
        drawn = percentiles(self.of(items, at)(items.drawn))
        if plain is None or drawn is None:
            return plain or drawn
        return Interval(min(plain.low, drawn.low), max(plain.high, drawn.high))


def _accuracy(items: Tally, at: Marks) -> Statistic:
    return weighted.rate(items.credit, at)


def _order(items: Tally, at: Marks) -> Statistic:
    counts = at | (items.truths != bool(items.truths[at][0]))
    whole = weighted.auroc(items.ranks, items.truths.tolist())
    return lambda weights: whole(weights * counts)


def strata_scores(
    scorer: str, basis: Basis, by: Literal["accuracy", "auroc"] = "accuracy"
) -> list[ScoreValue]:
    """One number for every stratum.

    Args:
        scorer: its name.
        basis: what it found.
        by: `accuracy` is the share judged right: hits where the feature fires, passes where it is silent.
            `auroc` is that of the stratum's items against all of the other truth.
    """
    part = _Part(by, _accuracy if by == "accuracy" else _order)
    own, other = tallies(basis)
    strata = sorted({v.stratum for v in own.verdicts})
    return [_score(scorer, part, stratum, basis, both=(own, other)) for stratum in strata]


def _marks(verdicts: Sequence[Verdict], stratum: str) -> Marks:
    return np.array([v.stratum == stratum for v in verdicts], np.bool_)


def _score(
    scorer: str, part: _Part, stratum: str, basis: Basis, *, both: tuple[Tally, Tally | None]
) -> ScoreValue:
    own, other = both
    at = _marks(own.verdicts, stratum)
    members = [v for v in own.verdicts if v.stratum == stratum]
    # numbers of a part are as good as those of the whole, but for parts that all failed
    has_some = any(v.state != "failed" for v in members)
    value = part.value(own, at) if has_some else None
    interval = None if value is None else part.interval(own, at, value)
    status = "ok" if value is not None else "failed" if own.status == "ok" else own.status
    return ScoreValue(
        scorer=scorer,
        metric=part.metric,
        stratum=stratum,
        status=status,
        value=value,
        ci_low=None if interval is None else interval.low,
        ci_high=None if interval is None else interval.high,
        n=len(members),
        n_failed=sum(v.state == "failed" for v in members),
        n_abstained=sum(v.state == "abstained" for v in members),
        baseline=None if other is None else part.value(other, _marks(other.verdicts, stratum)),
        judge=basis.judge,
        split_hash=basis.task.split_hash,
    )
