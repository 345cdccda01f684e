"""A job's hard cap. What a call may cost is reserved before it is sent, and settled by what it did cost."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from interpedia_autointerp.llm.errors import BudgetExhausted
from interpedia_shared.db.models import Budget
from interpedia_shared.db.session import ReadSession, WriteSession

_RESERVE = text("""
    UPDATE budget SET
        reserved_tokens = reserved_tokens + CAST(:tokens AS bigint),
        reserved_micro = reserved_micro + coalesce(CAST(:micro AS bigint), 0)
    WHERE job_id = :job_id
      AND (cap_tokens IS NULL OR spent_tokens + reserved_tokens + CAST(:tokens AS bigint) <= cap_tokens)
      AND (cap_micro IS NULL OR spent_micro + reserved_micro + CAST(:micro AS bigint) <= cap_micro)
    RETURNING job_id
""")


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Where a job stands. Money in millionths."""

    cap_tokens: int | None
    cap_micro: int | None
    reserved_tokens: int
    reserved_micro: int
    spent_tokens: int
    spent_micro: int
    n_calls: int
    n_cached: int


@dataclass(frozen=True, slots=True)
class Amount:
    """What one call may cost at most; `micro` is None where the endpoint has no price."""

    tokens: int
    micro: int | None


async def create_budget(
    session: WriteSession, job_id: uuid.UUID, *, cap_tokens: int | None = None, cap_micro: int | None = None
) -> None:
    """Give a job its cap, or another one; what was spent stays. No cap only counts; 0 allows nothing."""
    caps = {"cap_tokens": cap_tokens, "cap_micro": cap_micro}
    await session.execute(
        insert(Budget)
        .values(job_id=job_id, **caps)
        .on_conflict_do_update(index_elements=[Budget.job_id], set_=caps)
    )


async def read_budget(session: ReadSession | WriteSession, job_id: uuid.UUID) -> BudgetState | None:
    """What a job has spent and reserved; None when it has no budget."""
    names = BudgetState.__dataclass_fields__
    row = (
        await session.execute(
            select(*(getattr(Budget, name) for name in names)).where(Budget.job_id == job_id)
        )
    ).one_or_none()
    return None if row is None else BudgetState(**dict(zip(names, row, strict=True)))


async def reserve(
    session: WriteSession, job_id: uuid.UUID, amounts: Sequence[Amount]
) -> list[BudgetExhausted | None]:
    """Reserve for each call that still fits, in order; the others get the reason why not.

    One statement checks and adds when all fit together. Otherwise the row is locked first, so that nobody
    else comes between the reading and the writing.
    """
    if await _reserved(session, job_id, _total(amounts)):
        return [None] * len(amounts)
    locked = select(Budget.job_id).where(Budget.job_id == job_id).with_for_update()
    if (await session.execute(locked)).one_or_none() is None:
        return [BudgetExhausted(f"Job {job_id} has no budget.", job_id=job_id) for _ in amounts]
    state = await read_budget(session, job_id)
    assert state is not None
    taken: list[Amount] = []
    refusals: list[BudgetExhausted | None] = []
    for amount in amounts:
        fits = _fits(state, _total([*taken, amount]))
        if fits:
            taken.append(amount)
        refusals.append(None if fits else _refusal(state, job_id, amount))
    if taken:
        await _reserved(session, job_id, _total(taken))
    return refusals


def _total(amounts: Sequence[Amount]) -> Amount:
    unpriced = any(amount.micro is None for amount in amounts)
    micro = None if unpriced else sum(amount.micro or 0 for amount in amounts)
    return Amount(sum(amount.tokens for amount in amounts), micro)


def _fits(state: BudgetState, more: Amount, *, alone: bool = False) -> bool:
    """Whether so much more is within the caps; `alone`: if nothing else were reserved."""
    tokens = state.spent_tokens + more.tokens + (0 if alone else state.reserved_tokens)
    if state.cap_tokens is not None and tokens > state.cap_tokens:
        return False
    if state.cap_micro is None:
        return True
    micro = state.spent_micro + (0 if alone else state.reserved_micro)
    return more.micro is not None and micro + more.micro <= state.cap_micro


async def _reserved(session: WriteSession, job_id: uuid.UUID, amount: Amount) -> bool:
    values = {"job_id": job_id, "tokens": amount.tokens, "micro": amount.micro}
    return (await session.execute(_RESERVE, values)).one_or_none() is not None


def _refusal(state: BudgetState, job_id: uuid.UUID, amount: Amount) -> BudgetExhausted:
    parts: list[str] = []
    if state.cap_tokens is not None:
        parts.append(
            f"tokens: cap {state.cap_tokens}, spent {state.spent_tokens}, reserved {state.reserved_tokens}, "
            f"the next call may take {amount.tokens}"
        )
    if state.cap_micro is not None:
        price = "the endpoint has no price" if amount.micro is None else f"the next call {amount.micro}"
        parts.append(
            f"money (millionths): cap {state.cap_micro}, spent {state.spent_micro}, "
            f"reserved {state.reserved_micro}, {price}"
        )
    return BudgetExhausted(
        f"The budget does not allow another call: {'; '.join(parts)}.",
        job_id=job_id,
        may_fit_later=_fits(state, amount, alone=True),
    )
