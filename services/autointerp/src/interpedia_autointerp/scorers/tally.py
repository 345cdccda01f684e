"""Verdicts as arrays, with failures and abstentions counted by one rule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.window import Window
from interpedia_autointerp.scorers.method import Basis
from interpedia_autointerp.scorers.verdict import ScoreValue, Verdict
from interpedia_autointerp.statistics import Interval, draw_weights, percentiles
from interpedia_autointerp.statistics.intervals import Weights

MAX_FAILED_SHARE = 0.25
"""When more of the answers failed, there is no number at all."""
MIN_ITEMS = 5
"""Of each kind, firing and silent; with fewer there is no number either."""
Floats = NDArray[np.float64]
Statistic = Callable[[Weights], Floats]


@dataclass(frozen=True)
class Tally:
    """The verdicts of one subject.

    Doubt counts against the explanation: a failed item as judged wrong, and for the baseline as judged right;
    an abstained one as half right for both.

    Attributes:
        credit: how right each verdict is, 0 to 1.
        says: how much each says that the feature fires, 0 to 1.
        ranks: what orders the items: the probability where there is one, else `says`. What failed is put
            where it does most harm, and for the baseline most good.
        sizes: how many windows of the population each item stands for.
        documents: what the items were cut from; items of one document are not independent.
    """

    verdicts: Sequence[Verdict]
    truths: NDArray[np.bool_]
    credit: Floats
    says: Floats
    ranks: Floats
    sizes: Floats
    documents: tuple[Any, ...]
    seed: int

    @property
    def n_failed(self) -> int:
        """Items without an answer of use."""
        return sum(v.state == "failed" for v in self.verdicts)

    @property
    def n_abstained(self) -> int:
        """Items on which the judge did not want to say."""
        return sum(v.state == "abstained" for v in self.verdicts)

    @property
    def status(self) -> Literal["ok", "failed", "insufficient"]:
        """Whether numbers mean anything."""
        n_true = int(self.truths.sum())
        if min(n_true, len(self.truths) - n_true) < MIN_ITEMS:
            return "insufficient"
        return "failed" if self.n_failed > MAX_FAILED_SHARE * len(self.verdicts) else "ok"

    @cached_property
    def drawn(self) -> Weights:
        """Bootstrap draws: documents, within firing and silent items."""
        return draw_weights(self.truths.tolist(), groups=self.documents, seed=self.seed)


def tally(task: Task, verdicts: Sequence[Verdict], seed: int = 0, *, is_baseline: bool = False) -> Tally:
    """Count verdicts on the task's windows; those without a truth are left out."""
    known = [v for v in verdicts if v.truth is not None]
    truths = np.array([bool(v.truth) for v in known], np.bool_)
    says = np.array([_says(v, is_baseline) for v in known], np.float64)
    windows = [task.by_id.get(window_of(v.item)) for v in known]
    documents = tuple(
        ("item", v.item) if w is None or w.document < 0 else w.document
        for v, w in zip(known, windows, strict=True)
    )
    credit = np.where(truths, says, 1 - says)
    ranks = _ranks(known, says, is_baseline)
    return Tally(known, truths, credit, says, ranks, _sizes(task, windows), documents, seed)


def _sizes(task: Task, windows: Sequence[Window | None]) -> Floats:
    """What the items stand for: every stratum as much as in the whole task.

    Whole documents go to a split, so it has more of its share of one stratum and less of another.
    """
    whole: defaultdict[str, float] = defaultdict(float)
    here: defaultdict[str, float] = defaultdict(float)
    for window in task.windows:
        whole[window.stratum] += window.weight
    for window in windows:
        if window is not None:
            here[window.stratum] += window.weight
    return np.array([1.0 if w is None else _share(w, here) * whole[w.stratum] for w in windows], np.float64)


def _share(window: Window, here: Mapping[str, float]) -> float:
    return window.weight / here[window.stratum] if here[window.stratum] > 0 else 0.0


def window_of(item: str) -> str:
    """The window's id in the id of an item."""
    return item.partition("/")[0]


def _says(verdict: Verdict, is_baseline: bool) -> float:
    if verdict.state == "abstained":
        return 0.5
    if verdict.state == "failed":
        return float(bool(verdict.truth) == is_baseline)
    if verdict.verdict is not None:
        return float(verdict.verdict)
    return verdict.probability if verdict.probability is not None else 0.5


def _ranks(verdicts: Sequence[Verdict], says: Floats, is_baseline: bool) -> Floats:
    known = [v.probability for v in verdicts if v.probability is not None]
    if not known:
        return says
    low, high, middle = min(known) - 1, max(known) + 1, float(np.median(known))
    ranks: list[float] = []
    for verdict in verdicts:
        if verdict.state == "failed":
            ranks.append(high if bool(verdict.truth) == is_baseline else low)
        else:
            ranks.append(middle if verdict.probability is None else verdict.probability)
    return np.array(ranks, np.float64)


@dataclass(frozen=True)
class Metric:
    """One number: how to make it from a tally, and an interval that does not collapse where the draws do.

    Attributes:
        floor: interval from the counts alone. A bootstrap of verdicts that are all right has no width; the
            interval given is the hull of both.
    """

    name: str
    of: Callable[[Tally], Statistic]
    floor: Callable[[Tally, float], Interval | None] = lambda _tally, _value: None
    is_headline: bool = False


def scores_of(
    scorer: str, metrics: Sequence[Metric], basis: Basis, *, details: dict[str, Any] | None = None
) -> list[ScoreValue]:
    """Every metric over all items, with the same metric of the baseline's verdicts."""
    own, other = tallies(basis)
    shown = {**(details or {}), **_remarks(basis, own, other)}
    found: list[ScoreValue] = []
    for metric in metrics:
        value, interval = _estimate(metric, own)
        status = own.status if own.status != "ok" or value is not None else "undefined"
        found.append(
            ScoreValue(
                scorer=scorer,
                metric=metric.name,
                stratum="all",
                status=status,
                value=value,
                ci_low=None if interval is None else interval.low,
                ci_high=None if interval is None else interval.high,
                n=len(own.verdicts),
                n_failed=own.n_failed,
                n_abstained=own.n_abstained,
                baseline=None if other is None else _estimate(metric, other, is_quick=True)[0],
                judge=basis.judge,
                split_hash=basis.task.split_hash,
                is_headline=metric.is_headline,
                details=shown,
            )
        )
    return found


def tallies(basis: Basis) -> tuple[Tally, Tally | None]:
    """Of the explanation and, where there are verdicts on it, of the baseline."""
    own = tally(basis.task, basis.verdicts, basis.seed)
    if not basis.baseline:
        return own, None
    return own, tally(basis.task, basis.baseline, basis.seed, is_baseline=True)


def _remarks(basis: Basis, own: Tally, other: Tally | None) -> dict[str, Any]:
    """What a reader of the number has to know beside it."""
    found: dict[str, Any] = {"notes": list(basis.task.notes)} if basis.task.notes else {}
    if own.n_failed:
        found["failures"] = failures(own.verdicts)
    if other is not None and (other.n_failed or other.status != "ok"):
        found["baseline"] = {"status": other.status, "n": len(other.verdicts), "n_failed": other.n_failed}
    return found


def failures(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Why verdicts failed, with how many of each."""
    found: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.state == "failed":
            reason = verdict.reason or "unknown"
            found[reason] = found.get(reason, 0) + 1
    return found


def _estimate(
    metric: Metric, items: Tally, *, is_quick: bool = False
) -> tuple[float | None, Interval | None]:
    if items.status != "ok":
        return None, None
    statistic = metric.of(items)
    value = float(statistic(np.ones((1, len(items.truths))))[0])
    if math.isnan(value):
        return None, None
    if is_quick:
        return value, None
    known = [
        each for each in (percentiles(statistic(items.drawn)), metric.floor(items, value)) if each is not None
    ]
    low = min((each.low for each in known), default=value)
    high = max((each.high for each in known), default=value)
    return value, Interval(min(low, value), max(high, value))
