"""The task that scores some explanations of one SAE by every scorer of its job."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from interpedia_autointerp.explainers import How, Hypothesis
from interpedia_autointerp.material import Task
from interpedia_autointerp.methods.choices import scorer_of
from interpedia_autointerp.orders.ledger import Ledger
from interpedia_autointerp.orders.stopping import stoppable
from interpedia_autointerp.score import repository
from interpedia_autointerp.score.repository import Scorable
from interpedia_autointerp.scorers import (
    Judged,
    LiveAnswerer,
    NoRule,
    Scorer,
    ScoreValue,
    Subject,
    TooLong,
    Verdict,
    judge,
    partner,
    scored,
    unready,
)
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.contracts.autointerp import ScorerChoice
from interpedia_shared.explanations import choose_default
from interpedia_shared.ids import FeatureRef
from interpedia_shared.jobs import TaskContext

STAGE = "score"
_AT_ONCE = 48


@dataclass(frozen=True)
class Piece:
    """One explanation for one scorer."""

    scorable: Scorable
    task: Task
    choice: ScorerChoice
    run_id: uuid.UUID
    other: Hypothesis | None


class ScoreTask:
    """Handler of `score`."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def __call__(self, context: TaskContext) -> None:
        """Score; again changes nothing, and asks nothing that was answered.

        Raises:
            TaskFailed: the job is paused: budget or quota is used up.
            Problem: the endpoint or the live model failed altogether.
        """
        ledger = Ledger(context, STAGE)
        async with stoppable(context):
            try:
                await Scoring(self._workshop, context, ledger).run()
            finally:
                await ledger.tell(at_once=True)


class Scoring:
    """One attempt at one task."""

    def __init__(self, workshop: Workshop, context: TaskContext, ledger: Ledger) -> None:
        self._workshop = workshop
        self._context = context
        self._ledger = ledger
        request = context.job_params["request"]
        self._scorers = [ScorerChoice.model_validate(each) for each in request["scorers"]]
        self._endpoint: str = request["endpoint"]
        self._seed: int = request["seed"]
        self._repeat: int = request["repeat"]
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._done = 0

    async def run(self) -> None:
        """All explanations and scorers side by side."""
        scorables = await self._scorables()
        params = self._context.params
        tasks = await self._workshop.shelf.tasks(
            params["version_id"],
            sorted({each.feature.index for each in scorables}),
            verify=params["verify"],
            keep=params["keep"],
        )
        others = await self._others(scorables)
        pieces = [
            Piece(each, tasks[each.feature.index], choice, self._run_id(choice), others[each.id])
            for each in scorables
            for choice in self._scorers
            if each.feature.index in tasks
        ]
        todo = await self._left(pieces)
        self._ledger.count("scored", len(pieces) - len(todo))
        self._report(len(pieces) - len(todo))
        async with asyncio.TaskGroup() as group:
            for piece in todo:
                group.create_task(self._score(piece))
        await self._choose_defaults(scorables)
        self._context.report(self._context.weight)

    async def _scorables(self) -> list[Scorable]:
        params, runs = self._context.params, self._context.job_params["runs"]
        async with self._context.database.read() as session:
            if "explanations" in params:
                return await repository.explanations(session, ids=params["explanations"])
            made_by = [uuid.UUID(each) for name, each in runs.items() if name.startswith("explain:")]
            return await repository.explanations(
                session, run_ids=made_by, sae_id=params["sae_id"], indices=params["indices"]
            )

    def _run_id(self, choice: ScorerChoice) -> uuid.UUID:
        return uuid.UUID(self._context.job_params["runs"][f"score:{choice.name}"])

    async def _left(self, pieces: Sequence[Piece]) -> list[Piece]:
        ids = sorted({piece.scorable.id for piece in pieces})
        async with self._context.database.read() as session:
            there = await repository.scored(session, {piece.run_id for piece in pieces}, ids)
        return [piece for piece in pieces if (piece.run_id, piece.scorable.id) not in there]

    async def _others(self, scorables: Sequence[Scorable]) -> dict[int, Hypothesis | None]:
        """Another feature's explanation for each one's baseline."""
        pools: dict[tuple[int, str], Mapping[FeatureRef, Hypothesis]] = {}
        before = max((each.id for each in scorables), default=0)
        found: dict[int, Hypothesis | None] = {}
        for each in scorables:
            key = (each.sae_id, each.method)
            if key not in pools:
                async with self._context.database.read() as session:
                    pools[key] = await repository.partners(session, *key, before=before)
            ref = partner(each.feature, each.hypothesis, pools[key], seed=self._seed)
            found[each.id] = None if ref is None else pools[key][ref]
        return found

    async def _score(self, piece: Piece) -> None:
        async with self._slots:
            scorer, params = scorer_of(piece.choice)
            how = How(params, self._endpoint, self._seed, self._repeat)
            name = f"explanation {piece.scorable.id} {scorer.name}"
            if piece.task.status != "ok":
                if await self._keep(piece, [unready(scorer, piece.task)], []):
                    self._ledger.count(piece.task.status)
                return
            try:
                values, verdicts = await self._judged(piece, scorer, how)
            except NoRule:
                self._ledger.count("not_applicable")
                self._report(1)
                return
            except TooLong as error:
                self._ledger.fail(name, str(error))
                self._report(1)
                return
            if not await self._keep(piece, values, verdicts):
                return
            if values[0].status == "ok":
                self._ledger.count("scored")
            else:
                self._ledger.fail(name, _why(values[0]))

    async def _judged(self, piece: Piece, scorer: Scorer, how: How) -> tuple[list[ScoreValue], list[Verdict]]:
        subjects: dict[Subject, Hypothesis] = {"explanation": piece.scorable.hypothesis}
        if piece.other is not None:
            subjects["shuffled"] = piece.other
        answerer = LiveAnswerer(
            piece.scorable.feature,
            self._workshop.caller,
            piece.run_id,
            self._context.job_id,
            self._workshop.embedder,
            self._workshop.live,
        )
        judged = await judge(scorer, piece.task, subjects, how, answerer=answerer)
        name = await judge_name(self._workshop, scorer, how)
        numbers = partial(scored, scorer, piece.task, judged, judge=name, seed=self._seed)
        return await asyncio.to_thread(numbers), _all_verdicts(judged)

    async def _keep(self, piece: Piece, values: Sequence[ScoreValue], verdicts: Sequence[Verdict]) -> bool:
        """False, and counted as failed, when the text is another by now."""
        scorable = piece.scorable
        async with self._context.database.write() as session:
            is_same = await repository.keep(
                session,
                piece.run_id,
                scorable.id,
                text=scorable.hypothesis.text,
                values=values,
                verdicts=verdicts,
            )
        if not is_same:
            self._ledger.fail(f"explanation {scorable.id} {piece.choice.name}", repository.CHANGED)
        self._report(1)
        await self._ledger.tell()
        return is_same

    async def _choose_defaults(self, scorables: Sequence[Scorable]) -> None:
        by_sae: dict[int, set[int]] = {}
        for each in scorables:
            by_sae.setdefault(each.sae_id, set()).add(each.feature.index)
        async with self._context.database.write() as session:
            for sae_id, indices in sorted(by_sae.items()):
                await choose_default(session, sae_id, sorted(indices))

    def _report(self, more: int) -> None:
        self._done += more
        self._context.report(min(self._done, self._context.weight))


async def judge_name(workshop: Workshop, scorer: Scorer, how: How) -> str | None:
    """Who judges, for the record: endpoint and model, or the encoder; None for rules that are run."""
    needs = scorer.needs(how)
    if needs.endpoint:
        found = await workshop.caller.capabilities(how.endpoint)
        return f"{how.endpoint}: {found.reported_model}"
    if needs.embeddings and workshop.embedder is not None:
        return workshop.embedder.model
    return None


def _all_verdicts(judged: Judged) -> list[Verdict]:
    return [verdict for verdicts in judged.verdicts.values() for verdict in verdicts]


def _why(value: ScoreValue) -> str:
    if value.status == "failed":
        reasons = ", ".join(f"{why} {n}×" for why, n in value.details.get("failures", {}).items())
        return f"{value.n_failed} of {value.n} answers failed ({reasons})"
    return f"{value.status}: n {value.n}"
