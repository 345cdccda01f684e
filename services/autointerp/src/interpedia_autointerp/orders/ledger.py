"""The job's result while it runs: what was made, what failed and why, and what it has cost so far.

A task tells the sums of its own part; the job's result is the sum of the last word of every part, so a part
that runs again after a crash replaces what it said before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from interpedia_autointerp.llm import read_budget
from interpedia_shared.db.models import JobEvent
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.jobs import TaskContext
from interpedia_shared.jobs.events import append_event
from interpedia_shared.jobs.repository import lock_job

EVENT = "part"
SHOWN_FAILURES = 50
_PAUSE_S = 2.0


@dataclass
class Part:
    """What one task has done so far.

    Attributes:
        counts: by outcome: `explained`, `scored`, `failed`, `insufficient`, `dead`, …
        failures: a sentence for each feature or explanation that failed, by its name.
        results: further members of the event, for a later stage to read.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    failures: dict[str, str] = field(default_factory=dict[str, str])
    results: Any = None


class Ledger:
    """Writes one task's part into its job."""

    def __init__(self, context: TaskContext, stage: str) -> None:
        self._context = context
        self._name = f"{stage}/{context.ordinal}"
        self._told_at = 0.0
        self.part = Part()

    def count(self, outcome: str, number: int = 1) -> None:
        """So many more of an outcome."""
        if number:
            self.part.counts[outcome] += number

    def fail(self, name: str, reason: str) -> None:
        """One more that failed, and why."""
        if name not in self.part.failures:
            self.part.counts["failed"] += 1
        self.part.failures[name] = reason[:500]

    async def tell(self, *, at_once: bool = False) -> None:
        """Write it down, at most every two seconds unless `at_once`."""
        now = time.monotonic()
        if not at_once and now - self._told_at < _PAUSE_S:
            return
        self._told_at = now
        async with self._context.database.write() as session:
            await self._write(session)

    async def _write(self, session: WriteSession) -> None:
        job = await lock_job(session, self._context.job_id)
        if job is None:
            return
        # the task goes on counting while we wait for the database: sum and event must say the same
        counts, failures, results = dict(self.part.counts), dict(self.part.failures), self.part.results
        before = await self._before(session)
        result = dict(job.result or {})
        result["counts"] = _sum(result.get("counts", {}), before.get("counts", {}), counts)
        result["failures"] = _failures(result.get("failures", {}), before, failures)
        spent = await read_budget(session, job.id)
        if spent is not None:
            result["spent"] = {
                "tokens": spent.spent_tokens,
                "money": spent.spent_micro / 1e6,
                "calls": spent.n_calls,
                "stored_answers_used": spent.n_cached,
            }
        job.result = result
        data: dict[str, Any] = {"part": self._name, "counts": counts, "failures": failures}
        data["spent"] = result.get("spent")
        if results is not None:
            data["results"] = results
        await append_event(session, job.id, type=EVENT, data=data)

    async def _before(self, session: WriteSession) -> Mapping[str, Any]:
        """What this part said last, in whichever attempt."""
        found = await session.scalar(
            select(JobEvent.data)
            .where(
                JobEvent.job_id == self._context.job_id,
                JobEvent.type == EVENT,
                JobEvent.data["part"].as_string() == self._name,
            )
            .order_by(JobEvent.id.desc())
            .limit(1)
        )
        return found or {}


def _sum(total: Mapping[str, int], before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    names = {*total, *now}
    return {name: total.get(name, 0) - before.get(name, 0) + now.get(name, 0) for name in sorted(names)}


def _failures(shown: Mapping[str, str], before: Mapping[str, Any], now: Mapping[str, str]) -> dict[str, str]:
    """The first ones; every event has its part's whole list."""
    kept = {name: why for name, why in shown.items() if name not in before.get("failures", {})}
    return dict([*kept.items(), *now.items()][:SHOWN_FAILURES])


async def last_parts(session: ReadSession, job_id: Any, stage: str) -> list[Mapping[str, Any]]:
    """The last word of every part of a stage, in their order."""
    rows = await session.scalars(
        select(JobEvent.data)
        .where(
            JobEvent.job_id == job_id,
            JobEvent.type == EVENT,
            JobEvent.data["part"].as_string().startswith(f"{stage}/"),
        )
        .order_by(JobEvent.id)
    )
    last = {data["part"]: data for data in rows}
    return [last[name] for name in sorted(last, key=lambda name: int(name.rpartition("/")[2]))]
