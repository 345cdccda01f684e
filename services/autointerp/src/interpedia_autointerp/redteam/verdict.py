"""From what the feature did on the texts to a verdict on the hypothesis. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from interpedia_autointerp.redteam.attempt import HIT, Attempt
from interpedia_autointerp.scorers import ScoreValue
from interpedia_autointerp.statistics import draw_weights, estimate, sign_test, weighted, wilson

SCORER = "redteam"
MIN_TEXTS = 5
COUNTEREXAMPLES = 3
QUANTILES = (0.0, 0.25, 0.5)
WON, TRAPPED, MISSED = 0.8, 0.2, 0.5
"""Refuted when an interval lies wholly beyond one of these: pairs won, traps fired at, texts hit."""

Outcome = Literal["refuted", "survived", "undecided"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval; None without cases."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class RedTeamVerdict:
    """What came of one round.

    Attributes:
        signed_auroc: 2·AUROC − 1 of texts that should fire against random windows of the corpus: 1 when
            every one of them is above all of those, 0 by chance. None with fewer than MIN_TEXTS of either.
        hits: share of texts that should fire, at or above a quantile of the feature's own examples.
        pairs: share of minimal pairs in which the text with the property is the stronger; ties are half.
        p: of the sign test over the pairs.
        traps: share of texts that should not fire but do.
    """

    outcome: Outcome
    signed_auroc: Rate
    hits: dict[str, Rate]
    pairs: Rate
    p: float | None
    traps: Rate
    counterexamples: tuple[Attempt, ...]
    n_off_intent: int
    n_failed: int
    texts_sha256: str


def verdict(attempts: Sequence[Attempt], *, seed: int = 0) -> RedTeamVerdict:
    """Judge a hypothesis by its texts."""
    used = [each for each in attempts if each.counts]
    fire = [each for each in used if each.intent == "should_fire"]
    quiet = [each for each in used if each.intent == "should_not_fire"]
    hits = {f"{q:g}": _share(fire, lambda a, q=q: _at_least(a, q)) for q in QUANTILES}
    traps = _share(quiet, lambda a: _at_least(a, HIT))
    pairs, p = _pairs(used)
    return RedTeamVerdict(
        outcome=_outcome(hits[f"{HIT:g}"], pairs, traps),
        signed_auroc=_signed(fire, [each for each in used if each.intent == "control"], seed),
        hits=hits,
        pairs=pairs,
        p=p,
        traps=traps,
        counterexamples=counterexamples(used),
        n_off_intent=sum(each.state == "off_intent" for each in attempts),
        n_failed=sum(each.state == "failed" for each in attempts),
        texts_sha256=_hash(attempts),
    )


def counterexamples(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The strongest: traps at which it fires most, and texts that should fire it most and do not."""

    def strength(each: Attempt) -> float:
        quantile = each.quantile or 0.0
        return quantile if each.intent == "should_not_fire" else 1 - quantile

    wrong = [
        each
        for each in attempts
        if (each.intent == "should_fire" and not each.hits)
        or (each.intent == "should_not_fire" and each.hits)
    ]
    return tuple(sorted(wrong, key=lambda each: (-strength(each), each.text))[:COUNTEREXAMPLES])


def _at_least(each: Attempt, quantile: float) -> bool:
    found = each.quantile or 0.0
    return found >= quantile if quantile > 0 else bool(each.max)


def _share(attempts: Sequence[Attempt], holds: Callable[[Attempt], bool]) -> Rate:
    return _rate(sum(map(holds, attempts)), len(attempts))


def _rate(successes: float, n: int) -> Rate:
    interval = wilson(successes, n)
    if interval is None:
        return Rate(None, None, None, n)
    return Rate(successes / n, interval.low, interval.high, n)


def _pairs(attempts: Sequence[Attempt]) -> tuple[Rate, float | None]:
    sides: dict[tuple[str, int], dict[str, float]] = {}
    for each in attempts:
        if each.pair is not None and each.max is not None:
            sides.setdefault((each.author, each.pair), {})[each.intent] = each.max
    both = [side for side in sides.values() if {"should_fire", "should_not_fire"} <= side.keys()]
    wins = sum(side["should_fire"] > side["should_not_fire"] for side in both)
    losses = sum(side["should_fire"] < side["should_not_fire"] for side in both)
    ties = len(both) - wins - losses
    return _rate(wins + ties / 2, len(both)), sign_test(wins, losses) if both else None


def _signed(fire: Sequence[Attempt], controls: Sequence[Attempt], seed: int) -> Rate:
    n = len(fire) + len(controls)
    if min(len(fire), len(controls)) < MIN_TEXTS:
        return Rate(None, None, None, n)
    truths = [True] * len(fire) + [False] * len(controls)
    statistic = weighted.auroc([each.max or 0.0 for each in (*fire, *controls)], truths)
    found = estimate(statistic, draw_weights(truths, seed=seed))
    if found.value is None or found.interval is None:
        return Rate(None, None, None, n)
    return Rate(2 * found.value - 1, 2 * found.interval.low - 1, 2 * found.interval.high - 1, n)


def _outcome(hits: Rate, pairs: Rate, traps: Rate) -> Outcome:
    """Refuted by any one; survived when all that was tried is on the good side."""
    if (
        (pairs.high is not None and pairs.high < WON)
        or (traps.low is not None and traps.low > TRAPPED)
        or (hits.high is not None and hits.high < MISSED)
    ):
        return "refuted"
    good = [
        hits.low is not None and hits.low > MISSED,
        traps.high is not None and traps.value is not None and traps.value <= TRAPPED,
        pairs.value is None or pairs.value >= WON,
    ]
    return "survived" if all(good) else "undecided"


def _hash(attempts: Sequence[Attempt]) -> str:
    listed = [[each.text, each.intent, each.pair] for each in attempts]
    return hashlib.sha256(json.dumps(listed, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()


def score_values(found: RedTeamVerdict, *, judge: str | None, has_material: bool = True) -> list[ScoreValue]:
    """The verdict as rows of `score`; by chance the signed AUROC is 0 and pairs are won by half.

    None is a headline: texts that somebody chose rank no explanation. A feature with too few examples of its
    own to measure strengths by gets no values.
    """
    rows: list[tuple[str, Rate, float | None]] = [
        ("signed_auroc", found.signed_auroc, 0.0),
        ("hit_rate", found.hits[f"{HIT:g}"], None),
        ("paired_win_rate", found.pairs, 0.5),
        ("trap_rate", found.traps, None),
    ]
    outcome = found.outcome if has_material else "insufficient"
    details = {"outcome": outcome, "p_pairs": found.p, "off_intent": found.n_off_intent}

    def score(metric: str, rate: Rate, baseline: float | None) -> ScoreValue:
        is_known = has_material and rate.value is not None and rate.n >= MIN_TEXTS
        return ScoreValue(
            scorer=SCORER,
            metric=metric,
            stratum="all",
            status="ok" if is_known else "insufficient",
            value=rate.value if is_known else None,
            ci_low=rate.low if is_known else None,
            ci_high=rate.high if is_known else None,
            n=rate.n,
            n_failed=found.n_failed,
            n_abstained=found.n_off_intent,
            baseline=baseline,
            judge=judge,
            split_hash=found.texts_sha256,
            details=details,
        )

    return [score(*row) for row in rows]
