"""The rules of ordering explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interpedia_autointerp.embed import KIND as EMBED
from interpedia_autointerp.explain import repository
from interpedia_autointerp.explainers import EXPLAINERS, How
from interpedia_autointerp.methods.choices import (
    check_endpoint,
    explainer_needs,
    explainer_of,
    names_differ,
    prompt_id,
    scorer_needs,
    scorer_of,
)
from interpedia_autointerp.orders.estimating import estimate_order, explaining, scoring, together
from interpedia_autointerp.orders.making import QUEUE, Order, RunPlan, place
from interpedia_autointerp.score.service import score_plans
from interpedia_autointerp.targets import Target, chosen_features
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.autointerp import ExplainRequest, WorkAccepted
from interpedia_shared.db.session import WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs import TaskSpec
from interpedia_shared.problems import Invalid

KIND = "explain"
STAGES = ("explain", "score", "embed")


class ExplainService:
    """Takes orders; workers explain."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def explain(self, caller: Caller, request: ExplainRequest, once: Once) -> Answer:
        """Start a job: 202; or estimate it: 200.

        Raises:
            Problem: a method, feature or endpoint is not there, or cannot do this.
        """
        kept = await once.replay(self._workshop.database)
        if kept is not None:
            return kept
        names_differ(request.methods, "#/methods")
        names_differ(request.scorers, "#/scorers")
        asking = explainer_needs(request.methods, request.endpoint)
        asking += [(name, each.endpoint) for name, each in scorer_needs(request.scorers, request.endpoint)]
        targets = await self._targets(caller, request)
        verify = any(need for _, need in asking) if request.verify is None else request.verify
        if request.dry_run:
            return Answer.of(200, await self._estimate(request, targets, verify))
        await check_endpoint(self._workshop.caller, request.endpoint, asking, request.budget)

        async def order(session: WriteSession) -> Order:
            del session
            return self._order(caller, request, targets, verify)

        return await place(self._workshop.database, caller, once, order)

    async def _targets(self, caller: Caller, request: ExplainRequest) -> list[Target]:
        async with self._workshop.database.read() as session:
            targets = await chosen_features(session, request, caller)
            there = await repository.explained_by(session, request.only_failed_of)
        targets = [_without(target, there) for target in targets]
        targets = [target for target in targets if target.indices]
        number = sum(len(target.indices) for target in targets)
        limit = self._workshop.settings.max_features
        if number == 0:
            raise Invalid.field("#/features", "no feature is left to explain")
        if number > limit:
            raise Invalid.field("#/saes", f"{number} features, the limit of one job is {limit}")
        return targets

    async def _estimate(
        self, request: ExplainRequest, targets: Sequence[Target], verify: bool
    ) -> WorkAccepted:
        methods = [explainer_of(choice) for choice in request.methods]
        scorers = [scorer_of(choice) for choice in request.scorers]
        how = (request.endpoint, request.seed, request.repeat)
        plan = together(
            explaining([(method, How(params, *how)) for method, params in methods]),
            scoring([(scorer, How(params, *how)) for scorer, params in scorers], len(methods)),
        )
        found = await estimate_order(
            self._workshop.caller, self._workshop.shelf, targets, plan, verify=verify
        )
        return WorkAccepted(estimate=found)

    def _order(
        self, caller: Caller, request: ExplainRequest, targets: Sequence[Target], verify: bool
    ) -> Order:
        size = self._workshop.settings.features_per_task
        parts = [(target, part) for target in targets for part in target.parts(size)]

        def tasks(runs: Mapping[str, str]) -> list[TaskSpec]:
            found: list[TaskSpec] = []
            for number, (target, part) in enumerate(parts):
                params = _params(target, part, verify)
                times = {0: len(request.methods), 1: len(request.methods) * len(request.scorers)}
                found += [
                    TaskSpec(kind, stage, number, params, max(1, len(part) * times[stage]), queue=QUEUE)
                    for stage, kind in enumerate(STAGES[: 2 if request.scorers else 1])
                ]
            made_by = {"run_ids": [runs[f"explain:{each.name}"] for each in request.methods]}
            texts = sum(len(part) for _, part in parts) * len(request.methods)
            return [*found, TaskSpec(EMBED, 2, 0, made_by, texts, queue=QUEUE)]

        return Order(
            kind=KIND,
            params={"account_id": caller.account_id, "request": request.model_dump(mode="json")},
            stages=STAGES,
            runs=[*_explain_plans(request), *score_plans(request.scorers, request)],
            tasks=tasks,
            budget=request.budget,
            is_private=any(target.is_private for target in targets),
        )


def _params(target: Target, part: Sequence[int], verify: bool) -> dict[str, object]:
    return {
        "sae_id": target.sae_id,
        "version_id": target.version_id,
        "sae": f"{target.model}/{target.sae}",
        "indices": list(part),
        "verify": verify,
        "keep": False,
    }


def _explain_plans(request: ExplainRequest) -> list[RunPlan]:
    plans: list[RunPlan] = []
    for choice in request.methods:
        method = EXPLAINERS[choice.name]
        needs_llm = bool(method.needs(How(explainer_of(choice)[1])))
        provenance = {"prompt": prompt_id(method.prompt), "seed": request.seed, "repeat": request.repeat}
        provenance |= {"endpoint": request.endpoint if needs_llm else None}
        plans.append(RunPlan(KIND, choice.name, method.version, choice.params, provenance))
    return plans


def _without(target: Target, there: set[tuple[int, int]]) -> Target:
    left = tuple(index for index in target.indices if (target.sae_id, index) not in there)
    return Target(target.sae_id, target.version_id, target.model, target.sae, left, target.is_private)
