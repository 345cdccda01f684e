"""Runs a scorer's rounds: everything that can be asked at once is."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How
from interpedia_autointerp.llm import AnyRequest, Caller, LLMAnswer
from interpedia_autointerp.material.backend import Embedder, Steerer
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.method import (
    Answer,
    Ask,
    Basis,
    EmbedAsk,
    LLMAsk,
    Refused,
    Round,
    Scorer,
    SteerAsk,
)
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict
from interpedia_shared.embeddings import WIDTH, EmbeddingRefused, embed_each
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import Problem


class Answerer(Protocol):
    """Answers questions of all kinds."""

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer for each, in order.

        Raises:
            JobPaused, Problem: what the LLM's caller raises.
        """
        ...


@dataclass(frozen=True)
class LiveAnswerer:
    """The endpoint, the encoder and the live model, as far as they are there."""

    feature: FeatureRef
    caller: Caller | None = None
    run_id: uuid.UUID | None = None
    budget: uuid.UUID | None = None
    embedder: Embedder | None = None
    steerer: Steerer | None = None

    async def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """All at once."""
        found: list[Answer] = [Refused("not asked")] * len(asks)
        places = [number for number, ask in enumerate(asks) if isinstance(ask, LLMAsk)]
        requests = [ask.request for ask in asks if isinstance(ask, LLMAsk)]
        if requests and self.caller is not None:
            answers = self.caller.ask_all(requests, run_id=self.run_id, budget=self.budget)
            async with aclosing(answers):
                async for position, answer in answers:
                    found[places[position]] = answer
        elif requests:
            for place in places:
                found[place] = Refused("no endpoint")
        for number, ask in enumerate(asks):
            if isinstance(ask, EmbedAsk):
                found[number] = await self._embed(ask)
            elif isinstance(ask, SteerAsk):
                found[number] = await self._steer(ask)
        return found

    async def _embed(self, ask: EmbedAsk) -> Answer:
        if self.embedder is None:
            return Refused("no encoder")
        found = await asyncio.to_thread(embed_each, self.embedder, ask.texts)
        # no number where the endpoint refuses the text: that one item fails
        nothing = np.full(WIDTH, np.nan, np.float32)
        return np.stack([nothing if isinstance(each, EmbeddingRefused) else each for each in found])

    async def _steer(self, ask: SteerAsk) -> Answer:
        if self.steerer is None:
            return Refused("no live model")
        try:
            return await self.steerer.steer(
                self.feature,
                ask.prompts,
                ask.strengths,
                max_new_tokens=ask.max_new_tokens,
                seed=ask.seed,
            )
        except Problem as problem:
            return Refused(f"steering failed: {problem.title}")


@dataclass(frozen=True)
class Judged:
    """What a scorer found out: verdicts by subject, and the answers they were read from."""

    verdicts: Mapping[Subject, list[Verdict]]
    rounds: Mapping[Subject, tuple[Round, ...]] = field(default_factory=dict[Any, Any])

    def call_ids(self) -> set[int]:
        """The `llm_call` rows that were used."""
        return {
            answer.call_id
            for rounds in self.rounds.values()
            for each in rounds
            for answer in each.answers
            if isinstance(answer, LLMAnswer) and answer.call_id is not None
        }


async def judge(
    scorer: Scorer,
    task: Task,
    subjects: Mapping[Subject, Hypothesis],
    how: How,
    *,
    answerer: Answerer,
) -> Judged:
    """Verdicts on a feature's explanation and, for the baseline, on another's; asked side by side.

    Raises:
        NotReady, TooLong, NoRule: see the scorers' `plan`; and what the answerer raises.
    """
    rounds: dict[Subject, tuple[Round, ...]] = dict.fromkeys(subjects, ())
    while True:
        plans: dict[Subject, list[Ask]] = {
            name: scorer.plan(task, one, how, rounds[name]) for name, one in subjects.items()
        }
        asks = [ask for plan in plans.values() for ask in plan]
        if not asks:
            break
        distinct = list(dict.fromkeys(ask for ask in asks if not isinstance(ask, LLMAsk)))
        shared = dict(zip(distinct, await answerer.answer(distinct), strict=True)) if distinct else {}
        questions = [ask for ask in asks if isinstance(ask, LLMAsk)]
        answers = iter(await answerer.answer(questions)) if questions else iter(())
        for name, plan in plans.items():
            if plan:
                got = [next(answers) if isinstance(ask, LLMAsk) else shared[ask] for ask in plan]
                rounds[name] = (*rounds[name], Round(tuple(plan), tuple(got)))
    verdicts: dict[Subject, list[Verdict]] = {
        name: scorer.parse(task, one, how, done=rounds[name], subject=name) for name, one in subjects.items()
    }
    return Judged(verdicts, rounds)


def scored(
    scorer: Scorer, task: Task, judged: Judged, *, judge: str | None, seed: int = 0
) -> list[ScoreValue]:
    """The numbers of an explanation beside those of the shuffled one."""
    own = judged.verdicts["explanation"]
    baseline = judged.verdicts.get("shuffled", [])
    return scorer.aggregate(Basis(task, own, baseline, judge, seed))


def unready(scorer: Scorer, task: Task, *, judge: str | None = None) -> ScoreValue:
    """The row that stands for a score when there is too little material for one."""
    return ScoreValue(
        scorer=scorer.name,
        metric="none",
        stratum="all",
        status="insufficient",
        value=None,
        ci_low=None,
        ci_high=None,
        n=0,
        n_failed=0,
        n_abstained=0,
        baseline=None,
        judge=judge,
        split_hash=task.split_hash,
        is_headline=True,
        details={"status": task.status, "detail": task.detail},
    )


def expected_requests(scorer: Scorer, task: Task, hypothesis: Hypothesis, how: How) -> list[AnyRequest]:
    """All questions to the endpoint that scoring will take, for estimates; nothing is asked.

    Texts that the live model has yet to write are stood in for by ones of their length.
    """
    rounds: tuple[Round, ...] = ()
    requests: list[AnyRequest] = []
    while plan := scorer.plan(task, hypothesis, how, rounds):
        requests += [ask.request for ask in plan if isinstance(ask, LLMAsk)]
        rounds = (*rounds, Round(tuple(plan), tuple(_stand_in(ask) for ask in plan)))
    return requests


def _stand_in(ask: Ask) -> Answer:
    match ask:
        case LLMAsk():
            return Refused("not asked")
        case EmbedAsk():
            return np.zeros((len(ask.texts), 1), np.float32)
        case SteerAsk():
            return [f"{prompt} " + "word " * ask.max_new_tokens for prompt in ask.prompts]
