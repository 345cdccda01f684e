"""An order becomes rows: the job with its tasks and budget, and a run for each method, in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interpedia_autointerp.llm import create_budget
from interpedia_shared import __version__
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.autointerp import BudgetLimits, WorkAccepted
from interpedia_shared.db.models import Run
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs import TaskSpec, create_job, job_out

QUEUE = "autointerp"


@dataclass(frozen=True)
class RunPlan:
    """One run to be."""

    kind: str
    method: str
    version: str
    params: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """How tasks find it among the job's runs."""
        return f"{self.kind}:{self.method}"


@dataclass(frozen=True)
class Order:
    """All that a job is made from. `tasks` get the runs' ids by name.

    Jobs on private SAEs are shown to nobody but who ordered them.
    """

    kind: str
    params: Mapping[str, Any]
    stages: Sequence[str]
    runs: Sequence[RunPlan]
    tasks: Callable[[Mapping[str, str]], Sequence[TaskSpec]]
    budget: BudgetLimits
    is_private: bool = False


async def place(
    database: Database,
    caller: Caller,
    once: Once,
    order: Callable[[WriteSession], Awaitable[Order]],
) -> Answer:
    """Make the job: 202.

    Raises:
        IdempotencyMismatch: the key was used for another body.
        Problem: what making the order raises.
    """
    async with database.write() as session:
        kept = await once.claim(session)
        if kept is not None:
            return kept
        wanted = await order(session)
        runs = [
            Run(
                id=uuid.uuid4(),
                kind=plan.kind,
                method=plan.method,
                method_version=plan.version,
                params=dict(plan.params),
                provenance={"code_version": __version__, **plan.provenance},
                account_id=caller.account_id,
            )
            for plan in wanted.runs
        ]
        ids = {plan.name: str(run.id) for plan, run in zip(wanted.runs, runs, strict=True)}
        job = await create_job(
            session,
            kind=wanted.kind,
            account_id=caller.account_id,
            params={**wanted.params, "runs": ids, "is_private": wanted.is_private},
            stages=wanted.stages,
            tasks=wanted.tasks(ids),
        )
        for run in runs:
            run.job_id = job.id
        session.add_all(runs)
        await create_budget(session, job.id, cap_tokens=wanted.budget.tokens, cap_micro=wanted.budget.micro)
        await session.flush()
        shown = WorkAccepted(
            job=await job_out(session, job), runs={name: uuid.UUID(each) for name, each in ids.items()}
        )
        return await once.keep(session, Answer.of(202, shown))
