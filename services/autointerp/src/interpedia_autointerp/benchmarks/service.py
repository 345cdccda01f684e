"""The rules of ordering a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from interpedia_autointerp.targets import Target, chosen_features
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.autointerp import BenchmarkRequest, WorkAccepted
from interpedia_shared.db.session import WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs import TaskSpec
from interpedia_shared.problems import Invalid

KIND = "benchmark"
REPORT = "benchmark_report"
MAX_FEATURES = 2_000


class BenchmarkService:
    """Takes orders; workers compare."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def compare(self, caller: Caller, request: BenchmarkRequest, once: Once) -> Answer:
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
        async with self._workshop.database.read() as session:
            targets = await chosen_features(session, request, caller)
        number = sum(len(target.indices) for target in targets)
        if not 2 <= number <= MAX_FEATURES:
            raise Invalid.field("#/sample", f"{number} features; between 2 and {MAX_FEATURES} are compared")
        if request.dry_run:
            return Answer.of(200, await self._estimate(request, targets))
        await check_endpoint(self._workshop.caller, request.endpoint, asking, request.budget)
        verify = any(need for _, need in asking) if request.verify is None else request.verify

        async def order(session: WriteSession) -> Order:
            del session
            return self._order(caller, request, targets, verify)

        return await place(self._workshop.database, caller, once, order)

    async def _estimate(self, request: BenchmarkRequest, targets: Sequence[Target]) -> WorkAccepted:
        how = (request.endpoint, request.seed, request.repeat)
        explainers = [(one, How(params, *how)) for one, params in map(explainer_of, request.methods)]
        scorers = [(one, How(params, *how)) for one, params in map(scorer_of, request.scorers)]
        # two baselines are scored beside the methods
        plan = together(explaining(explainers), scoring(scorers, len(explainers) + 2))
        found = await estimate_order(self._workshop.caller, self._workshop.shelf, targets, plan)
        return WorkAccepted(estimate=found)

    def _order(
        self, caller: Caller, request: BenchmarkRequest, targets: Sequence[Target], verify: bool
    ) -> Order:
        size = self._workshop.settings.features_per_task

        def tasks(runs: Mapping[str, str]) -> list[TaskSpec]:
            del runs
            parts = [(target, part) for target in targets for part in target.parts(size)]
            found = [
                TaskSpec(
                    KIND,
                    0,
                    number,
                    {"version_id": target.version_id, "indices": list(part), "verify": verify},
                    len(part),
                    queue=QUEUE,
                )
                for number, (target, part) in enumerate(parts)
            ]
            return [*found, TaskSpec(REPORT, 1, 0, {}, queue=QUEUE)]

        return Order(
            kind=KIND,
            params={"account_id": caller.account_id, "request": request.model_dump(mode="json")},
            stages=["compare", "report"],
            runs=[_plan(each.name, each.params, request) for each in request.methods],
            tasks=tasks,
            budget=request.budget,
            is_private=any(target.is_private for target in targets),
        )


def _plan(name: str, params: Mapping[str, object], request: BenchmarkRequest) -> RunPlan:
    method = EXPLAINERS[name]
    provenance = {
        "prompt": prompt_id(method.prompt),
        "endpoint": request.endpoint,
        "seed": request.seed,
        "repeat": request.repeat,
        "scorers": [each.model_dump() for each in request.scorers],
    }
    return RunPlan(KIND, name, method.version, params, provenance)
