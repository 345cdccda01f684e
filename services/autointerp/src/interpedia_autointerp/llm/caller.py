"""Asks LLM endpoints: each question is paid for once, within limits and a budget, and its answer is kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from interpedia_autointerp.llm.answer import Failure, LLMAnswer
from interpedia_autointerp.llm.calls import Call, CallBook, Settled
from interpedia_autointerp.llm.capabilities import Capabilities, Need, require
from interpedia_autointerp.llm.errors import BudgetExhausted
from interpedia_autointerp.llm.estimate import Estimate, estimate
from interpedia_autointerp.llm.exchange import Unwanted
from interpedia_autointerp.llm.leases import LEASE_S
from interpedia_autointerp.llm.reading import Reading, read_reply
from interpedia_autointerp.llm.registry import Endpoint, Registry
from interpedia_autointerp.llm.request import AnyRequest, LLMRequest, Message, request_hash
from interpedia_autointerp.llm.settings import LLMSettings
from interpedia_shared.db.session import Database

REPAIRABLE = frozenset({"no_json", "cut_json", "schema", "wrong_ids", "empty"})
SHOWN_BAD_ANSWER = 4_000


class Caller:
    """All calls of one process; make one and share it. Not for use from several event loops.

    Limits of rate and concurrency hold within the process; budgets and stored answers hold for all.
    """

    def __init__(self, database: Database, settings: LLMSettings, *, lease_s: float = LEASE_S) -> None:
        self._registry = Registry(database, settings)
        self._book = CallBook(database, lease_s=lease_s)

    def names(self) -> list[str]:
        """Endpoints of the settings."""
        return self._registry.names()

    async def describe(self) -> list[Mapping[str, Any]]:
        """Every endpoint with what probing found, without keys; calls nothing."""
        return await self._registry.describe()

    async def capabilities(self, name: str, *, fresh: bool = False) -> Capabilities:
        """What an endpoint can do, probed at most once a day; `fresh` probes at most once a minute.

        Raises:
            EndpointNotFound: the settings have none of this name.
            EndpointFailed: it is dead, or refuses key or model.
            QuotaExhausted: it wants money.
        """
        ready = self._registry.probe_again if fresh else self._registry.ready
        return (await ready(name)).capabilities

    async def require(self, name: str, needs: Sequence[Need], *, method: str) -> None:
        """Return when the endpoint has all that a method needs.

        Raises:
            MissingCapability: it lacks something; and what `capabilities` raises.
        """
        require(await self.capabilities(name), needs, method=method, endpoint=name)

    def estimate(self, requests: Iterable[AnyRequest]) -> Estimate:
        """What the requests may cost, as if none were answered yet; calls nothing.

        Raises:
            EndpointNotFound: the settings lack an endpoint that a request names.
        """
        total = Estimate()
        for request in requests:
            endpoint = self._registry.get(request.endpoint)
            total += estimate(endpoint.settings, endpoint.estimator, [request])
        return total

    async def ask(
        self, request: AnyRequest, *, run_id: uuid.UUID | None = None, budget: uuid.UUID | None = None
    ) -> LLMAnswer:
        """The answer: the stored one, the one under way, or a new one that is paid for and stored.

        An answer that is of no use has a `failure`, and so has a request that the endpoint refuses or fails
        at. Cancelling this does not cancel a request that is on its way: its answer is stored.

        Args:
            request: the question.
            run_id: a run that is to be linked with the call.
            budget: the job whose budget pays.

        Raises:
            BudgetExhausted: it may cost more than what is left; it was not sent.
            QuotaExhausted: the endpoint wants money, or limits the rate beyond the patience.
            MissingCapability: it asks for logprobs, which the endpoint does not have.
            EndpointNotFound, EndpointFailed: see `capabilities`.
        """
        endpoint = await self._registry.ready(request.endpoint)
        _check_logprobs(endpoint, request)
        answer = await self._ask(endpoint, request, run_id, budget)
        failure = answer.failure
        if not isinstance(request, LLMRequest) or not request.allow_repair or failure is None:
            return answer
        if failure.kind not in REPAIRABLE:
            return answer
        second = await self._ask(endpoint, _repair(request, answer, failure), run_id, budget)
        usage = replace(
            second.usage,
            tokens_in=answer.usage.tokens_in + second.usage.tokens_in,
            tokens_cached=answer.usage.tokens_cached + second.usage.tokens_cached,
            tokens_out=answer.usage.tokens_out + second.usage.tokens_out,
            is_estimated=answer.usage.is_estimated or second.usage.is_estimated,
        )
        return replace(
            second,
            usage=usage,
            cost_micro=answer.cost_micro + second.cost_micro,
            is_cached=answer.is_cached and second.is_cached,
            is_repaired=True,
        )

    async def ask_all(
        self,
        requests: Iterable[AnyRequest],
        *,
        run_id: uuid.UUID | None = None,
        budget: uuid.UUID | None = None,
        window: int = 256,
    ) -> AsyncGenerator[tuple[int, LLMAnswer]]:
        """Answers as they land, each with the position of its request; at most `window` are asked at once.

        Close it (`contextlib.aclosing`) when you stop early: what was not sent yet is dropped then.

        Raises:
            What `ask` raises, once; the other requests are dropped, but for those on their way.
        """
        waiting = iter(enumerate(requests))
        running: dict[asyncio.Task[LLMAnswer], int] = {}

        def start() -> None:
            for position, request in waiting:
                running[asyncio.create_task(self.ask(request, run_id=run_id, budget=budget))] = position
                if len(running) >= window:
                    return

        try:
            start()
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                broken = [task for task in done if task.exception() is not None]
                landed = [(running.pop(task), task) for task in done if task not in broken]
                if not broken:
                    start()
                for position, task in landed:
                    yield position, task.result()
                if broken:
                    broken[0].result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def aclose(self) -> None:
        """Wait for what is on its way and store it, then close all connections."""
        await self._book.aclose()
        await self._registry.aclose()

    async def _ask(
        self, endpoint: Endpoint, request: AnyRequest, run_id: uuid.UUID | None, budget: uuid.UUID | None
    ) -> LLMAnswer:
        settings = endpoint.settings
        key = request_hash(settings.base_url, settings.model, request.canonical())
        while True:
            call, is_ours = self._book.find_or_start(Call(key, endpoint, request, run_id, budget))
            try:
                settled = await call.wait()
            except (BudgetExhausted, Unwanted):
                if is_ours:
                    raise
                # what kept another asker's call from being sent does not concern this one
                continue
            if not is_ours:
                settled = await self._book.share(call, settled, run_id, budget)
            return _answer(request, key, settled)


def _check_logprobs(endpoint: Endpoint, request: AnyRequest) -> None:
    if not isinstance(request, LLMRequest):
        require(endpoint.capabilities, ["prompt_logprobs"], method="Scoring a text", endpoint=endpoint.name)
    elif request.sampling.top_logprobs:
        require(endpoint.capabilities, ["chat_logprobs"], method="This request", endpoint=endpoint.name)


def _repair(request: LLMRequest, answer: LLMAnswer, failure: Failure) -> LLMRequest:
    """The same question with the bad answer and what is wrong with it."""
    bad = answer.text[:SHOWN_BAD_ANSWER] or "(nothing)"
    asked = f"That cannot be used. {failure.detail} Answer the question again, with the JSON object only."
    turns = (Message("assistant", bad), Message("user", asked))
    return replace(request, messages=(*request.messages, *turns), allow_repair=False)


def _answer(request: AnyRequest, key: str, settled: Settled) -> LLMAnswer:
    reply = settled.reply
    reading = Reading(failure=settled.failure)
    if reply is not None:
        reading = read_reply(request, reply) if isinstance(request, LLMRequest) else Reading()
    return LLMAnswer(
        request_hash=key,
        call_id=settled.call_id,
        **reading._asdict(),
        logprobs=() if reply is None else reply.logprobs,
        prompt_logprobs=() if reply is None else reply.prompt_logprobs,
        finish_reason=None if reply is None else reply.finish_reason,
        output_mode=settled.output_mode,
        reported_model=None if reply is None else reply.model,
        usage=settled.usage,
        cost_micro=settled.cost_micro,
        is_cached=not settled.is_paid,
        left_out=() if reply is None else reply.left_out,
    )
