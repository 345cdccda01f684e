"""The life of one call: opened in the database, sent, closed. Shared by all who ask the same meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from interpedia_autointerp.llm.ledger import Closing, Opened, Opening, Stored, close_calls, open_calls
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
        return worst_case(self.endpoint.estimator, self.request)


class CallBook:
    """All calls under way in this process, by request hash."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls: dict[str, Call] = {}
        self._opening: Batches[Opening, Stored | Opened] = Batches(self._open)
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

    async def _open(self, openings: Sequence[Opening]) -> Sequence[Stored | Opened | Exception]:
        return await open_calls(self._database, openings)

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
        with self._waits.under_way(call.budget):
            return await self._send(call, ending)

    async def _opened(self, call: Call, amount: Amount) -> Stored | Opened:
        """The stored answer, or a row of ours; waits where only calls under way stand against the budget.

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
                return await self._opening.submit(opening)
            except BudgetExhausted as error:
                if not error.may_fit_later or idle == IDLE_LOOKS:
                    raise
                idle = 0 if await self._waits.for_room(error.job_id) else idle + 1
            if not call.is_wanted():
                raise Unwanted(0)

    async def _send(self, call: Call, ending: Closing) -> Settled:
        """Send it and close its row, whatever happens."""
        try:
            reply, mode, sent = await self._exchange(call)
        except CallFailed as error:
            failed = self._failed(call, ending, error.failure.kind, error.failure.detail, error.lost)
            await self._closing.submit(failed)
            return Settled(
                ending.call_id, None, error.failure, None, failed.usage, failed.cost_micro, is_paid=True
            )
        except Unwanted as error:
            await self._closing.submit(
                self._failed(call, ending, "unwanted", "Nobody waited any more.", error.lost)
            )
            raise
        except (EndpointFailed, JobPaused) as error:
            kind = error.slug if isinstance(error, EndpointFailed) else error.reason
            await self._closing.submit(self._failed(call, ending, kind, error.detail, 0))
            raise
        usage = self._usage(call, reply, sent)
        done = replace(
            ending,
            response=reply.to_json(),
            output_mode=mode,
            usage=usage,
            cost_micro=cost_micro(call.endpoint.settings, usage) or 0,
            latency_ms=round(sent.seconds * 1000),
        )
        await self._closing.submit(done)
        return Settled(ending.call_id, reply, None, mode, usage, done.cost_micro, is_paid=True)

    def _failed(self, call: Call, ending: Closing, kind: str, detail: str, lost: int) -> Closing:
        """A row without an answer. Requests that got none may have been billed: their prompts are charged."""
        worst = call.reservation()
        usage = Usage(worst.tokens_in * lost, 0, 0, is_estimated=True) if lost else Usage()
        return replace(
            ending,
            kind="failed",
            error={"type": kind, "detail": detail},
            usage=usage,
            cost_micro=cost_micro(call.endpoint.settings, usage) or 0,
        )

    def _usage(self, call: Call, reply: Reply, sent: Sent) -> Usage:
        """Tokens as the endpoint counts them, or estimated; requests that got no answer are added."""
        estimator = call.endpoint.estimator
        told = read_usage(sent.body)
        if told is not None:
            estimator.learn(call.request, told)
        else:
            tokens_out = estimator.tokens_of_text(reply.text) if reply.text else 1
            told = Usage(estimator.tokens_in(call.request), 0, tokens_out, is_estimated=True)
        if not sent.lost:
            return told
        lost = estimator.tokens_in(call.request) * sent.lost
        return replace(told, tokens_in=told.tokens_in + lost, is_estimated=True)

    async def _exchange(self, call: Call) -> tuple[Reply, OutputMode | None, Sent]:
        """Send it in the strictest mode that the endpoint takes for it.

        Raises:
            What `Line.send` raises, and CallFailed for an answer that is not of the API's form.
        """
        request, endpoint = call.request, call.endpoint
        if not isinstance(request, LLMRequest):
            body = score_body(request, endpoint.capabilities, model=endpoint.settings.model)
            sent = await self._sent(call, "completions", body)
            return _read(lambda: read_scores(sent.body, request)), None, sent
        mode = first_mode(request, endpoint.capabilities)
        while True:
            body, left_out = chat_body(
                request, endpoint.capabilities, model=endpoint.settings.model, mode=mode
            )
            try:
                sent = await self._sent(call, "chat/completions", body)
            except CallFailed as error:
                if mode == "text" or not _is_about_form(error):
                    raise
                mode = MODES[MODES.index(mode) + 1]
                continue
            reply = _read(lambda: replace(read_chat(sent.body), left_out=left_out))  # noqa: B023 called at once
            return reply, mode, sent

    async def _sent(self, call: Call, path: str, body: dict[str, Any]) -> Sent:
        tokens = call.reservation().total
        return await call.endpoint.line.send(path, body, tokens=tokens, wanted=call.is_wanted)


def _is_about_form(error: CallFailed) -> bool:
    """Whether the endpoint refused the way of asking for JSON, as for a schema beyond its subset."""
    if error.refusal is None:
        return False
    said = f"{error.refusal.param or ''} {error.refusal.message}".lower()
    return any(word in said for word in _FORM_WORDS)


def _read(read: Any) -> Reply:
    try:
        return read()
    except Malformed as error:
        raise CallFailed(Failure("malformed", f"The answer is not of the API's form: {error}.")) from None
