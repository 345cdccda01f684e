"""The rules of ordering scores."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Select, or_, select, tuple_

from interpedia_autointerp.explainers import How, Hypothesis
from interpedia_autointerp.methods.choices import (
    check_endpoint,
    names_differ,
    prompt_id,
    scorer_needs,
    scorer_of,
)
from interpedia_autointerp.orders.estimating import estimate_order, scoring
from interpedia_autointerp.orders.making import QUEUE, Order, RunPlan, place
from interpedia_autointerp.score import repository
from interpedia_autointerp.targets import Target
from interpedia_autointerp.targets.repository import visible_sae
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.contracts.autointerp import (
    ExplainRequest,
    ScorerChoice,
    ScoreRequest,
    WorkAccepted,
)
from interpedia_shared.db.models import SAE, Explanation
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.ids import FeatureRef
from interpedia_shared.jobs import TaskSpec
from interpedia_shared.problems import FeatureNotFound, Invalid, NotFound

KIND = "score"


@dataclass(frozen=True)
class Batch:
    """Explanations of features of one SAE."""

    target: Target
    ids: tuple[int, ...]


class ScoreService:
    """Takes orders; workers score."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def score(self, caller: Caller, request: ScoreRequest, once: Once) -> Answer:
        """Start a job: 202; or estimate it: 200.

        Raises:
            Problem: a scorer, explanation or endpoint is not there, or cannot do this.
        """
        kept = await once.replay(self._workshop.database)
        if kept is not None:
            return kept
        names_differ(request.scorers, "#/scorers")
        needs = scorer_needs(request.scorers, request.endpoint)
        if self._workshop.embedder is not None and any(each.embeddings for _, each in needs):
            # refused here and now when it is not installed
            await asyncio.to_thread(getattr, self._workshop.embedder, "model")
        async with self._workshop.database.read() as session:
            batches = await self._batches(session, caller, request)
        asking = [(name, each.endpoint) for name, each in needs]
        verify = any(need for _, need in asking) if request.verify is None else request.verify
        if request.dry_run:
            return Answer.of(200, await self._estimate(request, batches, verify))
        await check_endpoint(self._workshop.caller, request.endpoint, asking, request.budget)

        async def order(session: WriteSession) -> Order:
            del session
            return self._order(caller, request, batches, verify)

        return await place(self._workshop.database, caller, once, order)

    async def _batches(self, session: ReadSession, caller: Caller, request: ScoreRequest) -> list[Batch]:
        await _check_features(session, caller, request)
        rows = (await session.execute(_wanted(request))).all()
        visible = [
            (row[0], row[1], row[2])
            for row in rows
            if row[2].visibility != "private"
            or row[2].account_id == caller.account_id
            or SCOPE_ADMIN in caller.scopes
        ]
        missing = set(request.explanations) - {row[0] for row in visible}
        if missing:
            raise NotFound(
                f"No explanation {min(missing)} here.", extensions={"explanations": sorted(missing)[:20]}
            )
        done = await repository.well_scored(session, request.only_failed_of)
        found: dict[int, list[tuple[int, int, SAE]]] = defaultdict(list)
        for row in visible:
            if row[0] not in done and row[2].current_version_id is not None:
                found[row[2].id].append(row)
        if not found:
            raise Invalid.field("#", "no explanation is left to score")
        size = self._workshop.settings.features_per_task
        return [batch for rows in found.values() for batch in _cut(rows, size)]

    async def _estimate(self, request: ScoreRequest, batches: Sequence[Batch], verify: bool) -> WorkAccepted:
        how = (request.endpoint, request.seed, request.repeat)
        scorers = [(scorer, How(params, *how)) for scorer, params in map(scorer_of, request.scorers)]
        texts: dict[FeatureRef, list[Hypothesis]] = defaultdict(list)
        async with self._workshop.database.read() as session:
            ids = [explanation_id for batch in batches for explanation_id in batch.ids]
            for each in await repository.explanations(session, ids=ids):
                texts[each.feature].append(each.hypothesis)
        found = await estimate_order(
            self._workshop.caller,
            self._workshop.shelf,
            _whole(batches),
            scoring(scorers, texts=texts),
            verify=verify,
            texts=texts,
        )
        return WorkAccepted(estimate=found)

    def _order(self, caller: Caller, request: ScoreRequest, batches: Sequence[Batch], verify: bool) -> Order:
        def tasks(runs: Mapping[str, str]) -> list[TaskSpec]:
            del runs
            return [
                TaskSpec(
                    KIND,
                    0,
                    number,
                    {
                        "sae_id": batch.target.sae_id,
                        "version_id": batch.target.version_id,
                        "explanations": list(batch.ids),
                        "verify": verify,
                        "keep": False,
                    },
                    len(batch.ids) * len(request.scorers),
                    queue=QUEUE,
                )
                for number, batch in enumerate(batches)
            ]

        return Order(
            kind=KIND,
            params={"account_id": caller.account_id, "request": request.model_dump(mode="json")},
            stages=["score"],
            runs=score_plans(request.scorers, request),
            tasks=tasks,
            budget=request.budget,
            is_private=any(batch.target.is_private for batch in batches),
        )


def _whole(batches: Sequence[Batch]) -> list[Target]:
    """The features of each SAE, each once: batches may share one."""
    by_sae: dict[int, Target] = {}
    for target in (batch.target for batch in batches):
        before = by_sae.get(target.sae_id)
        indices = {*target.indices, *(() if before is None else before.indices)}
        by_sae[target.sae_id] = replace(target, indices=tuple(sorted(indices)))
    return list(by_sae.values())


def score_plans(choices: Sequence[ScorerChoice], request: ScoreRequest | ExplainRequest) -> list[RunPlan]:
    """A run for each scorer."""
    plans: list[RunPlan] = []
    for choice in choices:
        scorer, params = scorer_of(choice)
        needs_llm = bool(scorer.needs(How(params)).endpoint)
        provenance = {"prompt": prompt_id(scorer.prompt), "seed": request.seed, "repeat": request.repeat}
        provenance |= {"endpoint": request.endpoint if needs_llm else None}
        plans.append(RunPlan(KIND, choice.name, scorer.version, choice.params, provenance))
    return plans


async def _check_features(session: ReadSession, caller: Caller, request: ScoreRequest) -> None:
    """Return when every feature that is named is there.

    Raises:
        Invalid: a name is none.
        SAENotFound, VersionNotFound, FeatureNotFound: there is nothing of that name.
    """
    highest: dict[tuple[str, str], int] = {}
    for ref in map(_parse, request.features):
        name = (ref.model, ref.sae)
        highest[name] = max(ref.index, highest.get(name, 0))
    for (model, sae), index in highest.items():
        row = await visible_sae(session, model, sae, caller)
        if index >= row.d_sae:
            raise FeatureNotFound(model, sae, index, row.d_sae)


def _wanted(request: ScoreRequest) -> Select[int, int, SAE]:
    statement = select(Explanation.id, Explanation.feature_idx, SAE).join(SAE, SAE.id == Explanation.sae_id)
    if request.explanations:
        statement = statement.where(Explanation.id.in_(request.explanations))
    elif request.run is not None:
        statement = statement.where(Explanation.run_id == request.run)
    else:
        by_sae: dict[tuple[str, str], list[int]] = defaultdict(list)
        for ref in map(_parse, request.features):
            by_sae[ref.model, ref.sae].append(ref.index)
        statement = statement.where(
            or_(
                *(
                    (tuple_(SAE.model_id, SAE.slug) == name) & Explanation.feature_idx.in_(indices)
                    for name, indices in by_sae.items()
                )
            )
        )
    return statement.order_by(Explanation.sae_id, Explanation.feature_idx, Explanation.id)


def _parse(ref: str) -> FeatureRef:
    try:
        return FeatureRef.parse(ref)
    except ValueError as error:
        raise Invalid.field("#/features", str(error)) from error


def _cut(rows: Sequence[tuple[int, int, SAE]], size: int) -> list[Batch]:
    found: list[Batch] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        sae = part[0][2]
        assert sae.current_version_id is not None
        indices = tuple(sorted({index for _, index, _ in part}))
        is_private = sae.visibility == "private"
        target = Target(sae.id, sae.current_version_id, sae.model_id, sae.slug, indices, is_private)
        found.append(Batch(target, tuple(explanation_id for explanation_id, _, _ in part)))
    return found
