"""The task that explains some features of one SAE by every method of its job."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from interpedia_autointerp.explain import repository
from interpedia_autointerp.explain.repository import Made, Maker
from interpedia_autointerp.explainers import Explained, Explainer, How, Hypothesis
from interpedia_autointerp.llm import LLMAnswer, LLMRequest
from interpedia_autointerp.material import Task
from interpedia_autointerp.methods.choices import explainer_of
from interpedia_autointerp.orders.ledger import Ledger
from interpedia_autointerp.orders.stopping import stoppable
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.contracts.autointerp import ExplainRequest, MethodChoice
from interpedia_shared.explanations import clean_text
from interpedia_shared.jobs import TaskContext

STAGE = "explain"
_KEPT_AT_ONCE = 16


class ExplainTask:
    """Handler of `explain`."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def __call__(self, context: TaskContext) -> None:
        """Explain; again changes nothing, and asks nothing that was answered.

        Raises:
            TaskFailed: the job is paused: budget or quota is used up.
            Problem: the endpoint or the live model failed altogether.
        """
        ledger = Ledger(context, STAGE)
        async with stoppable(context):
            try:
                await Explaining(self._workshop, context, ledger).run()
            finally:
                await ledger.tell(at_once=True)


class Explaining:
    """One attempt at one task."""

    def __init__(self, workshop: Workshop, context: TaskContext, ledger: Ledger) -> None:
        self._workshop = workshop
        self._context = context
        self._ledger = ledger
        self._request = ExplainRequest.model_validate(context.job_params["request"])
        self._indices: list[int] = context.params["indices"]
        self._done = 0

    async def run(self) -> None:
        """All methods side by side: the endpoint is kept busy by all of them."""
        params = self._context.params
        tasks = await self._workshop.shelf.tasks(
            params["version_id"], self._indices, verify=params["verify"], keep=params["keep"]
        )
        ready = [task for task in tasks.values() if task.status == "ok"]
        for task in tasks.values():
            if task.status != "ok":
                self._ledger.count(task.status)
        methods = self._request.methods
        self._report((len(self._indices) - len(ready)) * len(methods))
        async with asyncio.TaskGroup() as group:
            for choice in methods:
                group.create_task(self._method(choice, ready))

    async def _method(self, choice: MethodChoice, tasks: Sequence[Task]) -> None:
        explainer, params = explainer_of(choice)
        maker = self._maker(choice.name)
        how = How(params, self._request.endpoint, self._request.seed, self._request.repeat)
        indices = [task.feature.index for task in tasks]
        async with self._context.database.read() as session:
            there = await repository.explained(session, maker.run_id, maker.sae_id, indices)
        self._ledger.count("explained", len(there))
        self._report(len(there))
        todo = [task for task in tasks if task.feature.index not in there]
        found: list[tuple[Task, Explained]] = []
        try:
            async with aclosing(self._explained(explainer, how, todo, maker)) as stream:
                async for each in stream:
                    found.append(each)
                    if len(found) >= _KEPT_AT_ONCE:
                        await self._keep(maker, found)
                        found.clear()
        finally:
            await self._keep(maker, found)

    def _maker(self, method: str) -> Maker:
        params, job = self._context.params, self._context.job_params
        return Maker(
            uuid.UUID(job["runs"][f"explain:{method}"]),
            job["account_id"],
            method,
            params["sae_id"],
        )

    async def _explained(
        self, explainer: Explainer, how: How, tasks: Sequence[Task], maker: Maker
    ) -> AsyncGenerator[tuple[Task, Explained]]:
        """Each feature as soon as the last of its answers is there."""
        plans = [explainer.plan(task, how) for task in tasks]
        for task, plan in zip(tasks, plans, strict=True):
            if not plan:
                yield task, await asyncio.to_thread(explainer.parse, task, how, [])
        asked = [(number, request) for number, plan in enumerate(plans) for request in plan]
        answers: list[dict[int, LLMAnswer]] = [{} for _ in tasks]
        first = _first_places(plans)
        stream = self._workshop.caller.ask_all(
            [request for _, request in asked], run_id=maker.run_id, budget=self._context.job_id
        )
        async with aclosing(stream) as landed:
            async for position, answer in landed:
                number = asked[position][0]
                answers[number][position - first[number]] = answer
                if len(answers[number]) == len(plans[number]):
                    ordered = [answers[number][at] for at in range(len(plans[number]))]
                    yield tasks[number], explainer.parse(tasks[number], how, ordered)

    async def _keep(self, maker: Maker, found: Sequence[tuple[Task, Explained]]) -> None:
        """Store what was found and say so."""
        made: list[Made] = []
        for task, each in found:
            hypotheses, failures = presentable(each)
            if hypotheses:
                made.append(Made(task.feature.index, hypotheses, task.split_hash))
            else:
                self._ledger.fail(f"{task.feature} {maker.method}", "; ".join(failures))
        if made:
            async with self._context.database.write() as session:
                await repository.keep(session, maker, made)
        self._ledger.count("explained", len(made))
        self._report(len(found))
        await self._ledger.tell()

    def _report(self, more: int) -> None:
        self._done += more
        self._context.report(min(self._done, self._context.weight))


def presentable(found: Explained) -> tuple[tuple[Hypothesis, ...], tuple[str, ...]]:
    """Hypotheses whose text can be shown, and why the others cannot."""
    hypotheses: list[Hypothesis] = []
    failures = list(found.failures)
    for each in found.hypotheses:
        try:
            hypotheses.append(replace(each, text=clean_text(each.text)))
        except ValueError as error:
            failures.append(f"the explanation {error}")
    return tuple(hypotheses), tuple(failures)


def _first_places(plans: Sequence[Sequence[LLMRequest]]) -> list[int]:
    """Where each feature's questions begin in the list of all."""
    places, total = [], 0
    for plan in plans:
        places.append(total)
        total += len(plan)
    return places
