"""Tables `run` and what hangs on it. SQL only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.db.models import Explanation, Job, LLMCall, RedTeamText, Run, RunCall, Score
from interpedia_shared.db.session import ReadSession


async def find(session: ReadSession, run_id: uuid.UUID, caller: Caller | None) -> Run | None:
    """One run; those on somebody else's private SAE are not there."""
    run = await session.get(Run, run_id)
    job = None if run is None or run.job_id is None else await session.get(Job, run.job_id)
    if run is None or job is None or not job.params.get("is_private"):
        return run
    is_own = caller is not None and (caller.account_id == run.account_id or SCOPE_ADMIN in caller.scopes)
    return run if is_own else None


async def counts(session: ReadSession, run_id: uuid.UUID) -> tuple[int, int]:
    """How many explanations and scores it made."""
    explanations = select(func.count()).select_from(Explanation).where(Explanation.run_id == run_id)
    scores = select(func.count()).select_from(Score).where(Score.run_id == run_id)
    return int(await session.scalar(explanations) or 0), int(await session.scalar(scores) or 0)


async def spent(session: ReadSession, run_id: uuid.UUID) -> dict[str, Any]:
    """Sums over the calls it used; tokens and money of those it paid for only."""
    paid = RunCall.is_paid
    statement = (
        select(
            func.count(),
            func.count().filter(paid),
            func.coalesce(func.sum(LLMCall.tokens_in).filter(paid), 0),
            func.coalesce(func.sum(LLMCall.tokens_cached).filter(paid), 0),
            func.coalesce(func.sum(LLMCall.tokens_out).filter(paid), 0),
            func.coalesce(func.sum(LLMCall.cost_micro).filter(paid), 0),
        )
        .select_from(RunCall)
        .join(LLMCall, LLMCall.id == RunCall.call_id)
        .where(RunCall.run_id == run_id)
    )
    calls, n_paid, tokens_in, cached, tokens_out, micro = (await session.execute(statement)).one()
    return {
        "calls": calls,
        "paid_calls": n_paid,
        "tokens_in": int(tokens_in),
        "tokens_cached": int(cached),
        "tokens_out": int(tokens_out),
        "money": int(micro) / 1e6,
    }


async def texts(session: ReadSession, run_id: uuid.UUID, limit: int = 1000) -> Sequence[RedTeamText]:
    """Texts of a red-team, in order."""
    rows = await session.scalars(
        select(RedTeamText)
        .where(RedTeamText.run_id == run_id)
        .order_by(RedTeamText.round, RedTeamText.id)
        .limit(limit)
    )
    return list(rows)
