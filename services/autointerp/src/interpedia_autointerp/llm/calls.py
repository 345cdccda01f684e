"""The life of one call: opened in the database, sent, closed. Shared by all who ask the same meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from interpedia_autointerp.llm.answer import Failure, OutputMode, Usage
from interpedia_autointerp.llm.batches import Batches
from interpedia_autointerp.llm.budget import Amount
from interpedia_autointerp.llm.budget_waits import IDLE_LOOKS, BudgetWaits
from interpedia_autointerp.llm.errors import BudgetExhausted, JobPaused
from interpedia_autointerp.llm.estimate import cost_micro, worst_case
from interpedia_autointerp.llm.exchange import CallFailed, Sent, Unwanted
from interpedia_autointerp.llm.leases import LEASE_S, Leases
from interpedia_autointerp.llm.ledger import (
    Closing,
    Found,
    Opened,
    Opening,
    Stored,
    UnderWay,
    close_calls,
    extend_call,
    open_calls,
)
from interpedia_autointerp.llm.paying import Stake
from interpedia_autointerp.llm.registry import Endpoint
from interpedia_autointerp.llm.request import AnyRequest, LLMRequest
from interpedia_autointerp.llm.wire import (
    MODES,
    Malformed,
    Reply,
    chat_body,
    first_mode,
    read_chat,
    read_scores,
    read_usage,
    score_body,
)
from interpedia_shared.db.session import Database
from interpedia_shared.problems import EndpointFailed

log = structlog.get_logger(__name__)

# A paid answer is worth waiting for a database that restarts.
CLOSE_TRIES = 30
CLOSE_PAUSE_S = 1.0
# How often an answer is looked for that another process is asking for.
LOOK_S = 0.25
_FORM_WORDS = ("response_format", "json_schema", "json_object", "schema", "grammar")


@dataclass(frozen=True, slots=True)
class Settled:
    """How a call ended, for everybody who asked: with a reply, or with a failure of its own."""

    call_id: int
    reply: Reply | None
    failure: Failure | None
    output_mode: OutputMode | None
    usage: Usage
    cost_micro: int
    is_paid: bool


@dataclass(eq=False)
class Call:
    """One question under way, and how many wait for it."""

    key: str
    endpoint: Endpoint
    request: AnyRequest
    run_id: uuid.UUID | None
    budget: uuid.UUID | None
    waiters: int = 0
    task: asyncio.Task[Settled] | None = field(default=None, repr=False)

    async def wait(self) -> Settled:
        """The end of it. Who is cancelled here leaves the call to the others."""
        assert self.task is not None
        self.waiters += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self.waiters -= 1

    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        return self.waiters > 0

    def reservation(self) -> Usage:
        """The most tokens it may take."""
        return worst_case(self.request)

    def expected(self) -> int:
        """About how many tokens it takes, for limits of rate."""
        return self.endpoint.estimator.tokens_in(self.request) + self.request.max_tokens


class CallBook:
    """All calls under way in this process, by request hash."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._leases = Leases(database, lease_s=lease_s)
        self._calls: dict[str, Call] = {}
        self._opening: Batches[Opening, Stored | Opened | UnderWay] = Batches(self._open)
        self._closing: Batches[Closing, None] = Batches(self._close)
        self._waits = BudgetWaits()

    def find_or_start(self, new: Call) -> tuple[Call, bool]:
        """The call with the same hash that is under way, or this one, started; and whether it is this one."""
        known = self._calls.get(new.key)
        if known is not None and known.task is not None and not known.task.done():
            return known, False
        self._calls[new.key] = new
        new.task = asyncio.create_task(self._run(new))
        new.task.add_done_callback(lambda task: self._forget(new, task))
        return new, True

    def _forget(self, call: Call, task: asyncio.Task[Settled]) -> None:
        if self._calls.get(call.key) is call:
            del self._calls[call.key]
        if not task.cancelled() and task.exception() is not None and not call.waiters:
            log.info("llm_call_ended_unwanted", call=call.key, error=type(task.exception()).__name__)

    async def share(
        self, call: Call, settled: Settled, run_id: uuid.UUID | None, budget: uuid.UUID | None
    ) -> Settled:
        """Link a further asker with a call that another one paid for."""
        if (run_id, budget) != (None, None) and (run_id, budget) != (call.run_id, call.budget):
            await self._closing.submit(Closing(settled.call_id, kind="link", run_id=run_id, budget=budget))
        return replace(settled, is_paid=False)

    async def aclose(self) -> None:
        """Wait until nothing is under way any more."""
        while self._calls:
            await asyncio.wait([call.task for call in self._calls.values() if call.task is not None])
        await self._leases.aclose()

    async def _open(self, openings: Sequence[Opening]) -> Sequence[Found]:
        return await open_calls(self._database, openings, lease_s=self._leases.lease_s)

    async def _close(self, closings: Sequence[Closing]) -> Sequence[None]:
        for left in range(CLOSE_TRIES, 0, -1):
            try:
                await close_calls(self._database, closings)
                break
            except (DBAPIError, OSError) as error:
                if left == 1:
                    raise
                log.warning("llm_answers_wait_for_database", count=len(closings), error=type(error).__name__)
                await asyncio.sleep(CLOSE_PAUSE_S)
        return [None] * len(closings)

    async def _run(self, call: Call) -> Settled:
        worst = call.reservation()
        amount = Amount(worst.total, cost_micro(call.endpoint.settings, worst))
        opened = await self._opened(call, amount)
        if isinstance(opened, Stored):
            reply, mode = Reply.from_json(opened.response), opened.output_mode
            return Settled(opened.call_id, reply, None, mode, opened.usage, opened.cost_micro, is_paid=False)
        ending = Closing(
            opened.call_id, opened.attempt, run_id=call.run_id, budget=call.budget, amount=amount
        )
        stake = Stake(ending, worst, is_wanted=call.is_wanted, extend=self._extend)
        with self._waits.under_way(call.budget), self._leases.held(opened):
            return await self._send(call, stake)

    async def _extend(self, closing: Closing) -> BudgetExhausted | None:
        return await extend_call(self._database, closing)

    async def _opened(self, call: Call, amount: Amount) -> Stored | Opened:
        """The stored answer, or a row of ours.

        Waits where another process asks the same, or only calls under way stand against the budget.

        Raises:
            BudgetExhausted: it does not fit, and waiting does not help.
            Unwanted: nobody waits any more.
        """
        settings = call.endpoint.settings
        opening = Opening(
            request_hash=call.key,
            endpoint=call.endpoint.name,
            model=settings.model,
            request={"base_url": settings.base_url, **call.request.canonical()},
            amount=amount,
            run_id=call.run_id,
            budget=call.budget,
        )
        idle = 0
        while True:
            try:
                opened = await self._opening.submit(opening)
                if not isinstance(opened, UnderWay):
                    return opened
                await asyncio.sleep(LOOK_S)
            except BudgetExhausted as error:
                if not error.may_fit_later or idle == IDLE_LOOKS:
                    raise
                idle = 0 if await self._waits.for_room(error.job_id) else idle + 1
            if not call.is_wanted():
                raise Unwanted

    async def _send(self, call: Call, stake: Stake) -> Settled:
        """Send it and close its row, whatever happens."""
        try:
            reply, mode, sent = await self._exchange(call, stake)
        except CallFailed as error:
            failed = self._failed(call, stake, error.failure.kind, error.failure.detail)
            await self._closing.submit(failed)
            return Settled(
                failed.call_id, None, error.failure, None, failed.usage, failed.cost_micro, is_paid=True
            )
        except Unwanted:
            await self._closing.submit(self._failed(call, stake, "unwanted", "Nobody waited any more."))
            raise
        except (EndpointFailed, JobPaused) as error:
            kind = error.slug if isinstance(error, EndpointFailed) else error.reason
            await self._closing.submit(self._failed(call, stake, kind, error.detail))
            raise
        usage = stake.charged(self._told(call, reply, sent))
        done = replace(
            stake.ending,
            response=reply.to_json(),
            output_mode=mode,
            usage=usage,
            cost_micro=cost_micro(call.endpoint.settings, usage) or 0,
            latency_ms=round(sent.seconds * 1000),
        )
        await self._closing.submit(done)
        return Settled(done.call_id, reply, None, mode, usage, done.cost_micro, is_paid=True)

    def _failed(self, call: Call, stake: Stake, kind: str, detail: str) -> Closing:
        """A row without an answer. Requests that got none may have been billed: they are charged."""
        usage = stake.charged(None)
        return replace(
            stake.ending,
            kind="failed",
            error={"type": kind, "detail": detail},
            usage=usage,
            cost_micro=cost_micro(call.endpoint.settings, usage) or 0,
        )

    def _told(self, call: Call, reply: Reply, sent: Sent) -> Usage:
        """Tokens as the endpoint counts them, or estimated."""
        estimator = call.endpoint.estimator
        told = read_usage(sent.body)
        if told is not None:
            estimator.learn(call.request, told)
            return told
        tokens_out = estimator.tokens_of_text(reply.text) if reply.text else 1
        return Usage(estimator.tokens_in(call.request), 0, tokens_out, is_estimated=True)

    async def _exchange(self, call: Call, stake: Stake) -> tuple[Reply, OutputMode | None, Sent]:
        """Send it in the strictest mode that the endpoint takes for it.

        Raises:
            What `Line.send` raises, and CallFailed for an answer that is not of the API's form.
        """
        request, endpoint = call.request, call.endpoint
        if not isinstance(request, LLMRequest):
            body = score_body(request, endpoint.capabilities, model=endpoint.settings.model)
            sent = await self._sent(call, stake, "completions", body)
            return _read(partial(read_scores, sent.body, request), stake), None, sent
        mode = first_mode(request, endpoint.capabilities)
        while True:
            body, left_out = chat_body(
                request, endpoint.capabilities, model=endpoint.settings.model, mode=mode
            )
            try:
                sent = await self._sent(call, stake, "chat/completions", body)
            except CallFailed as error:
                if mode == "text" or not _is_about_form(error):
                    raise
                mode = MODES[MODES.index(mode) + 1]
                continue
            return _read(partial(_chat_reply, sent.body, left_out), stake), mode, sent

    async def _sent(self, call: Call, stake: Stake, path: str, body: dict[str, Any]) -> Sent:
        return await call.endpoint.line.send(path, body, tokens=call.expected(), payer=stake)


def _is_about_form(error: CallFailed) -> bool:
    """Whether the endpoint refused the way of asking for JSON, as for a schema beyond its subset."""
    if error.refusal is None:
        return False
    said = f"{error.refusal.param or ''} {error.refusal.message}".lower()
    return any(word in said for word in _FORM_WORDS)


def _chat_reply(body: Any, left_out: tuple[str, ...]) -> Reply:
    return replace(read_chat(body), left_out=left_out)


def _read(read: Callable[[], Reply], stake: Stake) -> Reply:
    try:
        return read()
    except Malformed as error:
        # what it cost is not told in a form that could be trusted
        stake.was_lost()
        raise CallFailed(Failure("malformed", f"The answer is not of the API's form: {error}.")) from None
