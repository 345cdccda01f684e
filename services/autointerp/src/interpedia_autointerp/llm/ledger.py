"""`llm_call`, `run_call` and the settlement of budgets: what was asked, answered and paid. SQL only.

A row is `sent` before its request goes out and `done` right after the answer is in. While it is `sent`, its
`error` already says what will be true if this process dies now: the call is lost, with what was reserved for
it. Its owner lives as long as the lease is renewed: whoever else asks the same waits for the answer. When
the lease is over, whoever finds the row asks again; the lost reservation counts as spent: it may have been
billed.
`attempts` tells two owners of one row apart.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import text

from interpedia_autointerp.llm.answer import OutputMode, Usage
from interpedia_autointerp.llm.budget import Amount, reserve
from interpedia_autointerp.llm.errors import BudgetExhausted
from interpedia_shared.db.session import Database, WriteSession


@dataclass(frozen=True, slots=True)
class Opening:
    """A request that is about to be sent, unless its answer is there."""

    request_hash: str
    endpoint: str
    model: str
    request: Mapping[str, Any]
    amount: Amount
    run_id: uuid.UUID | None = None
    budget: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer was there."""

    call_id: int
    response: Mapping[str, Any]
    output_mode: OutputMode | None
    usage: Usage
    cost_micro: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The row is ours: send, then close it."""

    call_id: int
    attempt: int


class TakenOver(Exception):
    """The lease was over and another process asks; what was sent here is charged as lost."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Another process asks this right now."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a call ended. `link` only adds a run to a call that another one paid for."""

    call_id: int
    attempt: int = 0
    kind: Literal["done", "failed", "link"] = "done"
    run_id: uuid.UUID | None = None
    budget: uuid.UUID | None = None
    amount: Amount = field(default_factory=lambda: Amount(0, 0))
    response: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    output_mode: OutputMode | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro: int = 0
    latency_ms: int | None = None


_FIND = text("""
    SELECT id, request_hash, state, response, output_mode, tokens_in, tokens_cached, tokens_out,
           is_estimated, cost_micro, leased_until > clock_timestamp() AS is_leased
    FROM llm_call WHERE request_hash = ANY(:hashes) AND state IN ('done', 'sent')
""")

_LOST = text("""
    SELECT request_hash, error FROM llm_call
    WHERE request_hash = ANY(:hashes) AND state = 'sent' AND leased_until <= clock_timestamp()
    ORDER BY request_hash FOR UPDATE
""")

_CHARGE_LOST = text("""
    UPDATE budget SET
        reserved_tokens = reserved_tokens - :tokens, spent_tokens = spent_tokens + :tokens,
        reserved_micro = reserved_micro - :micro, spent_micro = spent_micro + :micro
    WHERE job_id = :job_id
""")

_OPEN = text("""
    INSERT INTO llm_call (request_hash, endpoint, model, request, state, error, attempts, leased_until)
    SELECT r.request_hash, r.endpoint, r.model, r.request, 'sent', r.error, 1,
        clock_timestamp() + make_interval(secs => :lease_s)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(request_hash text, endpoint text, model text, request jsonb, error jsonb)
    ORDER BY r.request_hash
    ON CONFLICT (request_hash) DO UPDATE SET
        state = 'sent', error = excluded.error, attempts = llm_call.attempts + 1,
        leased_until = excluded.leased_until
        WHERE llm_call.state = 'failed'
            OR (llm_call.state = 'sent' AND llm_call.leased_until <= clock_timestamp())
    RETURNING id, request_hash, attempts
""")

_REFUSE = text("""
    UPDATE llm_call SET state = 'failed', error = CAST(:error AS jsonb) WHERE id = ANY(:ids)
""")

_RENEW = text("""
    UPDATE llm_call AS c SET leased_until = clock_timestamp() + make_interval(secs => :lease_s)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(call_id bigint, attempt smallint)
    WHERE c.id = r.call_id AND c.attempts = r.attempt AND c.state = 'sent'
""")

_OWN = text("""
    SELECT error FROM llm_call WHERE id = :call_id AND attempts = :attempt AND state = 'sent' FOR UPDATE
""")

_TELL = text("""
    UPDATE llm_call SET error = CAST(:error AS jsonb) WHERE id = :call_id
""")

_LINK = text("""
    WITH r AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(call_id bigint, run_id uuid, budget uuid)
    ), linked AS (
        INSERT INTO run_call (run_id, call_id, is_paid)
        SELECT DISTINCT r.run_id, r.call_id, false FROM r JOIN run ON run.id = r.run_id
        ON CONFLICT DO NOTHING
    )
    UPDATE budget SET n_cached = budget.n_cached + s.count
    FROM (SELECT budget, count(*) AS count FROM r WHERE budget IS NOT NULL GROUP BY budget) AS s
    WHERE budget.job_id = s.budget
""")

_CLOSE = text("""
    WITH r AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            call_id bigint, attempt smallint, state text, run_id uuid, budget uuid,
            reserved_tokens bigint, reserved_micro bigint, response jsonb, error jsonb, output_mode text,
            finish_reason text, tokens_in integer, tokens_cached integer, tokens_out integer,
            is_estimated boolean, cost_micro bigint, latency_ms integer)
    ), owned AS (
        UPDATE llm_call AS c SET
            state = r.state, response = r.response, error = r.error, output_mode = r.output_mode,
            finish_reason = r.finish_reason, tokens_in = r.tokens_in, tokens_cached = r.tokens_cached,
            tokens_out = r.tokens_out, is_estimated = r.is_estimated, cost_micro = r.cost_micro,
            latency_ms = r.latency_ms, answered_at = now()
        FROM r WHERE c.id = r.call_id AND c.attempts = r.attempt AND c.state = 'sent'
        RETURNING c.id
    ), charged AS (
        -- ours as it was opened: the reservation goes; taken over by somebody else: it was charged as lost
        SELECT r.*, CASE WHEN o.id IS NULL THEN 0 ELSE 1 END AS is_owned
        FROM r JOIN llm_call AS c ON c.id = r.call_id LEFT JOIN owned AS o ON o.id = r.call_id
        WHERE o.id IS NOT NULL OR c.attempts > r.attempt
    ), linked AS (
        INSERT INTO run_call (run_id, call_id, is_paid)
        SELECT g.run_id, g.call_id, g.is_paid FROM (
            SELECT run_id, call_id, bool_or(tokens_in + tokens_out > 0) AS is_paid FROM charged
            GROUP BY run_id, call_id
        ) AS g JOIN run ON run.id = g.run_id
        ON CONFLICT (run_id, call_id) DO UPDATE SET is_paid = run_call.is_paid OR excluded.is_paid
    )
    UPDATE budget SET
        reserved_tokens = reserved_tokens - s.freed_tokens, reserved_micro = reserved_micro - s.freed_micro,
        spent_tokens = spent_tokens + s.tokens, spent_micro = spent_micro + s.micro,
        n_calls = n_calls + s.count
    FROM (
        SELECT budget AS job_id, count(*) FILTER (WHERE tokens_in + tokens_out > 0) AS count,
            sum(is_owned * reserved_tokens) AS freed_tokens, sum(is_owned * reserved_micro) AS freed_micro,
            sum(tokens_in + tokens_out - (1 - is_owned) * reserved_tokens) AS tokens,
            sum(cost_micro - (1 - is_owned) * reserved_micro) AS micro
        FROM charged WHERE budget IS NOT NULL GROUP BY budget ORDER BY budget
    ) AS s
    WHERE budget.job_id = s.job_id
""")


Found = Stored | Opened | UnderWay | BudgetExhausted


async def open_calls(
    database: Database, openings: Sequence[Opening], *, lease_s: float = 20.0
) -> list[Found]:
    """For each: the answer that is there, or a row to send under, or that another process sends it right now,
    or why the budget does not allow it.

    The hashes differ from one another. Everything happens in one transaction; rows are locked in the order
    of their hashes and budgets after them, so that two processes never wait for each other in a circle.
    """
    async with database.write() as session:
        found: dict[str, Found] = {}
        missing = list(openings)
        # twice is enough: what is neither stored nor ours after an insert is, or was, another process's
        while missing:
            found |= await _stored(session, missing)
            found |= await _open(
                session, [each for each in missing if each.request_hash not in found], lease_s
            )
            missing = [each for each in missing if each.request_hash not in found]
        await _link(session, openings, found)
    return [found[each.request_hash] for each in openings]


async def _stored(session: WriteSession, openings: Sequence[Opening]) -> dict[str, Stored | UnderWay]:
    """The answers that are there or under way; lost calls are charged on the way."""
    rows = (await session.execute(_FIND, {"hashes": [each.request_hash for each in openings]})).all()
    lost = [row.request_hash for row in rows if row.state == "sent" and not row.is_leased]
    if lost:
        await _charge_lost(session, lost)
    there: dict[str, Stored | UnderWay] = {
        row.request_hash: UnderWay() for row in rows if row.state == "sent" and row.is_leased
    }
    return there | {
        row.request_hash: Stored(
            row.id,
            row.response,
            row.output_mode,
            Usage(row.tokens_in, row.tokens_cached, row.tokens_out, row.is_estimated),
            row.cost_micro,
        )
        for row in rows
        if row.state == "done"
    }


async def _charge_lost(session: WriteSession, hashes: Sequence[str]) -> None:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in (await session.execute(_LOST, {"hashes": list(hashes)})).all():
        reserved = (row.error or {}).get("reserved") or {}
        if reserved.get("job_id"):
            sums[reserved["job_id"]][0] += reserved["tokens"]
            sums[reserved["job_id"]][1] += reserved["micro"]
    for job_id in sorted(sums):
        tokens, micro = sums[job_id]
        values = {"job_id": uuid.UUID(job_id), "tokens": tokens, "micro": micro}
        await session.execute(_CHARGE_LOST, values)


async def _open(
    session: WriteSession, openings: Sequence[Opening], lease_s: float
) -> dict[str, Opened | BudgetExhausted]:
    if not openings:
        return {}
    rows = [
        {
            "request_hash": each.request_hash,
            "endpoint": each.endpoint,
            "model": each.model,
            "request": each.request,
            "error": _lost_error(each),
        }
        for each in openings
    ]
    opened = {
        row.request_hash: Opened(row.id, row.attempts)
        for row in (await session.execute(_OPEN, {"rows": json.dumps(rows), "lease_s": lease_s})).all()
    }
    refused = await _reserve(session, [each for each in openings if each.request_hash in opened])
    if refused:
        error = {"type": "budget", "detail": "Not sent: the job's budget did not allow it."}
        ids = [opened[request_hash].call_id for request_hash in refused]
        await session.execute(_REFUSE, {"ids": ids, "error": json.dumps(error)})
    return {**opened, **refused}


def _lost_error(opening: Opening) -> dict[str, Any]:
    return {
        "type": "lost",
        "detail": "The process ended, or lost the database, while this call was under way.",
        "reserved": {
            "job_id": None if opening.budget is None else str(opening.budget),
            "tokens": opening.amount.tokens,
            "micro": opening.amount.micro or 0,
        },
    }


async def _reserve(session: WriteSession, openings: Sequence[Opening]) -> dict[str, BudgetExhausted]:
    """Reserve for those with a budget; the refused ones with the reason."""
    by_budget: dict[uuid.UUID, list[Opening]] = defaultdict(list)
    for each in openings:
        if each.budget is not None:
            by_budget[each.budget].append(each)
    refused: dict[str, BudgetExhausted] = {}
    for job_id in sorted(by_budget):
        group = by_budget[job_id]
        refusals = await reserve(session, job_id, [each.amount for each in group])
        pairs = zip(group, refusals, strict=True)
        refused |= {each.request_hash: refusal for each, refusal in pairs if refusal is not None}
    return refused


async def _link(session: WriteSession, openings: Sequence[Opening], found: Mapping[str, object]) -> None:
    rows: list[dict[str, Any]] = []
    for each in openings:
        stored = found[each.request_hash]
        if isinstance(stored, Stored) and (each.run_id is not None or each.budget is not None):
            rows.append(_link_row(stored.call_id, each.run_id, each.budget))
    if rows:
        await session.execute(_LINK, {"rows": json.dumps(rows)})


def _link_row(call_id: int, run_id: uuid.UUID | None, budget: uuid.UUID | None) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "run_id": None if run_id is None else str(run_id),
        "budget": None if budget is None else str(budget),
    }


async def renew_leases(database: Database, held: Sequence[tuple[int, int]], *, lease_s: float) -> None:
    """Go on owning calls under way: (call, attempt) each."""
    rows = [{"call_id": call_id, "attempt": attempt} for call_id, attempt in sorted(held)]
    if rows:
        async with database.write() as session:
            await session.execute(_RENEW, {"rows": json.dumps(rows), "lease_s": lease_s})


async def extend_call(database: Database, closing: Closing) -> BudgetExhausted | None:
    """Reserve the closing's amount once more for a call under way; why not, where it does not fit.

    Raises:
        TakenOver: another process has asked meanwhile.
    """
    if closing.budget is None:
        return None
    names = {"call_id": closing.call_id, "attempt": closing.attempt}
    async with database.write() as session:
        error = await session.scalar(_OWN, names)
        if error is None:
            raise TakenOver
        (refusal,) = await reserve(session, closing.budget, [closing.amount])
        if refusal is None:
            reserved = error["reserved"]
            reserved["tokens"] += closing.amount.tokens
            reserved["micro"] += closing.amount.micro or 0
            await session.execute(_TELL, {"call_id": closing.call_id, "error": json.dumps(error)})
        return refusal


async def close_calls(database: Database, closings: Sequence[Closing]) -> None:
    """Write down how calls ended and settle their budgets. Doing it twice changes nothing but `n_cached`."""
    links = [_link_row(c.call_id, c.run_id, c.budget) for c in closings if c.kind == "link"]
    ends = [_close_row(closing) for closing in closings if closing.kind != "link"]
    async with database.write() as session:
        if ends:
            await session.execute(_CLOSE, {"rows": json.dumps(ends)})
        if links:
            await session.execute(_LINK, {"rows": json.dumps(links)})


def _close_row(closing: Closing) -> dict[str, Any]:
    usage, response = closing.usage, closing.response
    return {
        **_link_row(closing.call_id, closing.run_id, closing.budget),
        "attempt": closing.attempt,
        "state": closing.kind,
        "reserved_tokens": closing.amount.tokens,
        "reserved_micro": closing.amount.micro or 0,
        "response": response,
        "error": closing.error,
        "output_mode": closing.output_mode,
        "finish_reason": None if response is None else response.get("finish_reason"),
        "tokens_in": usage.tokens_in,
        "tokens_cached": usage.tokens_cached,
        "tokens_out": usage.tokens_out,
        "is_estimated": usage.is_estimated,
        "cost_micro": closing.cost_micro,
        "latency_ms": closing.latency_ms,
    }
