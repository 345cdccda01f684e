"""Explains and scores some frozen tasks by several methods; one entry for each feature, method and scorer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from interpedia_autointerp.benchmarks.scramble import scrambled
from interpedia_autointerp.explainers import Explainer, How, Hypothesis
from interpedia_autointerp.explainers.rules import TokenTable
from interpedia_autointerp.llm import Caller, LLMAnswer
from interpedia_autointerp.material import Embedder, Steerer, Task
from interpedia_autointerp.scorers import (
    Judged,
    LiveAnswerer,
    NoRule,
    Scorer,
    Subject,
    TooLong,
    judge,
    partner,
    scored,
)
from interpedia_shared.ids import FeatureRef

EMPTY, SAME_TOKEN, SCRAMBLED = "baseline:empty", "baseline:same-token", "scrambled:"
NOTHING = Hypothesis("(no explanation is given)", no_pattern=True, rule=TokenTable({}))
_AT_ONCE = 16


@dataclass(frozen=True)
class Entry:
    """One feature's explanation by one method under one scorer.

    Attributes:
        status: `ok`, or why there is no value: `failed`, `insufficient`, `not_applicable`, `unexplained`.
        shuffled: the same number for another feature's explanation.
        explain_tokens, score_tokens: prompt and answer; of scoring, those of the explanation itself without
            its baseline's.
    """

    feature: str
    method: str
    scorer: str
    status: str
    text: str = ""
    metric: str = ""
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    shuffled: float | None = None
    n: int = 0
    n_failed: int = 0
    explain_tokens: int = 0
    score_tokens: int = 0
    calls: int = 0
    split_hash: str = ""


@dataclass(frozen=True)
class Bench:
    """What the comparison is made with."""

    explainers: Sequence[tuple[Explainer, How]]
    scorers: Sequence[tuple[Scorer, How]]
    caller: Caller | None = None
    embedder: Embedder | None = None
    steerer: Steerer | None = None
    runs: Mapping[str, uuid.UUID] = field(default_factory=dict[str, uuid.UUID])
    budget: uuid.UUID | None = None
    seed: int = 0


@dataclass(frozen=True)
class Claim:
    """What a method says about one task, and what that took."""

    task: Task
    method: str
    hypothesis: Hypothesis | None
    tokens: int = 0
    calls: int = 0


async def compare(bench: Bench, tasks: Sequence[Task]) -> list[Entry]:
    """All methods, baselines and controls on all tasks that have enough material.

    Raises:
        JobPaused, Problem: what the caller raises.
    """
    ready = [task for task in tasks if task.status == "ok"]
    claims: list[Claim] = []
    for explainer, how in bench.explainers:
        own = await explained(bench, explainer, how, ready)
        claims += own
        if not explainer.needs(how):
            control = [scrambled(task, bench.seed) for task in ready]
            claims += await explained(bench, explainer, how, control, prefix=SCRAMBLED)
        if explainer is bench.explainers[0][0]:
            claims += _baselines(own)
    return await scores(bench, claims)


async def explained(
    bench: Bench, explainer: Explainer, how: How, tasks: Sequence[Task], *, prefix: str = ""
) -> list[Claim]:
    """The first hypothesis of one method about each task; None where all its answers failed."""
    plans = [explainer.plan(task, how) for task in tasks]
    answers = await _ask(bench, [r for plan in plans for r in plan], bench.runs.get(explainer.name))
    claims: list[Claim] = []
    at = 0
    for task, plan in zip(tasks, plans, strict=True):
        got = answers[at : at + len(plan)]
        at += len(plan)
        found = (await asyncio.to_thread(explainer.parse, task, how, got)).hypotheses
        tokens = sum(answer.usage.total for answer in got)
        claims.append(Claim(task, prefix + explainer.name, found[0] if found else None, tokens, len(got)))
    return claims


async def _ask(bench: Bench, requests: Sequence[Any], run_id: uuid.UUID | None) -> list[LLMAnswer]:
    if not requests:
        return []
    assert bench.caller is not None
    found: dict[int, LLMAnswer] = {}
    async with aclosing(bench.caller.ask_all(requests, run_id=run_id, budget=bench.budget)) as landed:
        async for position, answer in landed:
            found[position] = answer
    return [found[position] for position in range(len(requests))]


def _baselines(claims: Sequence[Claim]) -> list[Claim]:
    """Saying nothing; and what is said of another feature that peaks on the same token, the hard one."""
    found = [Claim(claim.task, EMPTY, NOTHING) for claim in claims]
    by_token: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.hypothesis is not None:
            by_token.setdefault(_peak_token(claim.task), []).append(claim)
    for claim in claims:
        others = [each for each in by_token.get(_peak_token(claim.task), []) if each.task is not claim.task]
        if others:
            found.append(Claim(claim.task, SAME_TOKEN, others[0].hypothesis))
    return found


def _peak_token(task: Task) -> str:
    windows = task.of("explain", fires=True)
    return windows[0].pieces[windows[0].peak].strip().casefold() if windows else ""


async def scores(bench: Bench, claims: Sequence[Claim]) -> list[Entry]:
    """Every claim under every scorer."""
    slots = asyncio.Semaphore(_AT_ONCE)
    pools: dict[str, dict[FeatureRef, Hypothesis]] = {}
    for claim in claims:
        if claim.hypothesis is not None and not claim.hypothesis.no_pattern:
            pools.setdefault(claim.method, {})[claim.task.feature] = claim.hypothesis

    async def one(claim: Claim, scorer: Scorer, how: How) -> Entry:
        async with slots:
            return await _score(bench, claim, scorer, how, pools.get(claim.method, {}))

    jobs = [one(claim, scorer, how) for claim in claims for scorer, how in bench.scorers]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(job) for job in jobs]
    return [task.result() for task in running]


async def _score(
    bench: Bench, claim: Claim, scorer: Scorer, how: How, pool: Mapping[FeatureRef, Hypothesis]
) -> Entry:
    task, own = claim.task, claim.hypothesis
    base = Entry(
        str(task.feature),
        claim.method,
        scorer.name,
        "unexplained",
        explain_tokens=claim.tokens,
        calls=claim.calls,
        split_hash=task.split_hash,
    )
    if own is None:
        return base
    if own.no_pattern and own.rule is None and scorer.needs(how).rule:
        # a method cannot gain by saying nothing where that is no rule
        own = replace(own, rule=NOTHING.rule)
    subjects: dict[Subject, Hypothesis] = {"explanation": own}
    other = partner(task.feature, own, pool, seed=bench.seed)
    if other is not None:
        subjects["shuffled"] = pool[other]
    run_id = bench.runs.get(claim.method)
    answerer = LiveAnswerer(task.feature, bench.caller, run_id, bench.budget, bench.embedder, bench.steerer)
    try:
        judged = await judge(scorer, task, subjects, how, answerer=answerer)
    except (NoRule, TooLong):
        return replace(base, status="not_applicable", text=own.text)
    values = await asyncio.to_thread(scored, scorer, task, judged, judge=None, seed=bench.seed)
    first = values[0]
    tokens, calls = _cost(judged)
    return replace(
        base,
        status=first.status,
        text=own.text,
        metric=first.metric,
        value=first.value,
        ci_low=first.ci_low,
        ci_high=first.ci_high,
        shuffled=first.baseline,
        n=first.n,
        n_failed=first.n_failed,
        score_tokens=tokens,
        calls=claim.calls + calls,
    )


def _cost(judged: Judged) -> tuple[int, int]:
    answers = [
        answer
        for each in judged.rounds.get("explanation", ())
        for answer in each.answers
        if isinstance(answer, LLMAnswer)
    ]
    return sum(answer.usage.total for answer in answers), len(answers)
