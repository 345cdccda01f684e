"""The tasks that compare explainers on some features, and that put the table together at the end."""

from __future__ import annotations

import uuid
from dataclasses import asdict

from interpedia_autointerp.benchmarks.entries import Bench, Entry, compare
from interpedia_autointerp.benchmarks.report import report
from interpedia_autointerp.explainers import How
from interpedia_autointerp.methods.choices import explainer_of, scorer_of
from interpedia_autointerp.orders.ledger import Ledger, last_parts
from interpedia_autointerp.orders.stopping import stoppable
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.contracts.autointerp import BenchmarkRequest
from interpedia_shared.db.base import JSON
from interpedia_shared.jobs import TaskContext

STAGE = "compare"


class BenchmarkTask:
    """Handler of `benchmark`."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def __call__(self, context: TaskContext) -> None:
        """Compare on a few features; the entries go into an event of the job.

        Raises:
            TaskFailed: the job is paused: budget or quota is used up.
            Problem: the endpoint or the live model failed altogether.
        """
        ledger = Ledger(context, STAGE)
        request = BenchmarkRequest.model_validate(context.job_params["request"])
        params = context.params
        async with stoppable(context):
            tasks = await self._workshop.shelf.tasks(
                params["version_id"], params["indices"], verify=params["verify"], keep=True
            )
            for task in tasks.values():
                if task.status != "ok":
                    ledger.count(task.status)
            entries = await compare(self._bench(context, request), list(tasks.values()))
            ledger.count("compared", sum(task.status == "ok" for task in tasks.values()))
            ledger.part.results = [asdict(entry) for entry in entries]
            await ledger.tell(at_once=True)

    def _bench(self, context: TaskContext, request: BenchmarkRequest) -> Bench:
        how = (request.endpoint, request.seed, request.repeat)
        runs = context.job_params["runs"]
        return Bench(
            explainers=[(one, How(params, *how)) for one, params in map(explainer_of, request.methods)],
            scorers=[(one, How(params, *how)) for one, params in map(scorer_of, request.scorers)],
            caller=self._workshop.caller,
            embedder=self._workshop.embedder,
            steerer=self._workshop.live,
            runs={name.partition(":")[2]: uuid.UUID(run) for name, run in runs.items()},
            budget=context.job_id,
            seed=request.seed,
        )


class BenchmarkReportTask:
    """Handler of `benchmark_report`."""

    async def __call__(self, context: TaskContext) -> JSON:
        """The table from what all tasks found."""
        async with context.database.read() as session:
            parts = await last_parts(session, context.job_id, STAGE)
        entries = [Entry(**each) for part in parts for each in part["results"]]
        return {"report": report(entries, seed=context.job_params["request"]["seed"])}
