"""One call with its retries, within the endpoint's limits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from interpedia_autointerp.llm.answer import Failure
from interpedia_autointerp.llm.errors import QuotaExhausted
from interpedia_autointerp.llm.limiter import Ending, Limiter
from interpedia_autointerp.llm.refusals import OVERLOADED, Refusal, exhausted_for, understand
from interpedia_autointerp.llm.settings import EndpointSettings
from interpedia_autointerp.llm.transport import Answered, Transport, TransportFailed
from interpedia_shared.problems import EndpointFailed

LONGEST_BACKOFF_S = 60.0

_WHY = {
    "key_refused": "it refuses the key (status {status}: {message})",
    "model_not_found": "it has no such model or path (status {status}: {message})",
    "redirected": "it redirects elsewhere (status {status}); set the final address",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer with how it came.

    Attributes:
        tries: requests sent for it.
    """

    body: Any
    seconds: float
    tries: int


class CallFailed(Exception):
    """This one call has no answer; others may have."""

    def __init__(self, failure: Failure, *, refusal: Refusal | None = None) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.refusal = refusal


class Unwanted(Exception):
    """Nobody waits for the answer any more, so it was not asked for (again)."""


class Payer(Protocol):
    """Who waits for an answer and pays for it."""

    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        ...

    def was_lost(self) -> None:
        """A request that was sent got no answer; it may have been billed all the same."""
        ...

    async def before_sending(self) -> None:
        """Return when a request may be paid for, the lost ones included; else raise."""
        ...


class Nobody:
    """Pays for probes: no job does."""

    def is_wanted(self) -> bool:
        """Always."""
        return True

    def was_lost(self) -> None:
        """Is not counted."""

    async def before_sending(self) -> None:
        """May always be sent."""


class Line:
    """The way to one endpoint: transport, limits, retries."""

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self.name = name
        self.settings = settings
        self.transport = Transport(settings)
        self.limiter = Limiter(
            settings.concurrency,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )

    async def send(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        tokens: int,
        payer: Payer | None = None,
    ) -> Sent:
        """Send until there is an answer of the API's kind, or no hope of one.

        Raises:
            CallFailed: this request is refused, or the endpoint failed as often as it may.
            EndpointFailed: no call can succeed: nothing listens, or key or model are refused.
            QuotaExhausted: no money left, or limits that outlast the patience.
            Unwanted: nobody waits for it any more.
            What the payer raises.
        """
        payer = payer or Nobody()
        attempt = _Attempts(self.name, self.settings)
        while True:
            await payer.before_sending()
            ticket = await self.limiter.acquire(tokens)
            if not payer.is_wanted():
                self.limiter.release(ticket, "failed")
                raise Unwanted
            answered: Answered | None = None
            refusal: Refusal | None = None
            ending: Ending = "failed"
            wait = 0.0
            try:
                answered = await self.transport.post(path, body)
                refusal = understand(answered)
                ending = _ending(refusal)
            except TransportFailed as error:
                if error.reason != "unreachable":
                    payer.was_lost()
                wait = attempt.without_answer(error)
            finally:
                self.limiter.release(ticket, ending, tokens=_used(answered))
            if answered is not None:
                self._heed(answered, refusal, tokens)
                if refusal is None:
                    return Sent(answered.body, answered.seconds, attempt.tries + 1)
                wait = attempt.refused(refusal)
            await asyncio.sleep(wait)

    def _heed(self, answered: Answered, refusal: Refusal | None, tokens: int) -> None:
        """Hold the whole endpoint for as long as it asks for."""
        if refusal is not None and refusal.meaning == "limited":
            wait = refusal.wait_s
        else:
            wait = exhausted_for(answered.headers, tokens=tokens)
        if wait:
            self.limiter.hold(min(wait, self.settings.patience_s))


class _Attempts:
    """Counts what went wrong with one call and says how long to wait, or raises."""

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self._name = name
        self._settings = settings
        self._limited_since: float | None = None
        self._failures = 0
        self._limited = 0
        self.tries = 0

    def without_answer(self, error: TransportFailed) -> float:
        """No HTTP answer came."""
        self.tries += 1
        self._failures += 1
        if self._failures < self._settings.max_attempts:
            return self._backoff(self._failures)
        if error.reason == "unreachable":
            raise EndpointFailed(self._name, "unreachable", f"{error.detail} to {self._settings.base_url}.")
        raise self._gave_up(error.detail)

    def refused(self, refusal: Refusal) -> float:
        """An HTTP answer that is none of the API's kind."""
        self.tries += 1
        if refusal.meaning == "quota":
            raise QuotaExhausted(
                f"LLM endpoint '{self._name}' wants money (status {refusal.status}: {refusal.message}).",
                retry_after_s=refusal.wait_s,
            )
        if refusal.meaning in _WHY:
            why = _WHY[refusal.meaning].format(status=refusal.status, message=refusal.message)
            raise EndpointFailed(self._name, refusal.meaning, f"{why}.")
        said = f"status {refusal.status}: {refusal.message}"
        if refusal.meaning == "rejected":
            raise CallFailed(
                Failure("rejected", f"The endpoint refuses the request ({said})."), refusal=refusal
            )
        if refusal.meaning == "limited":
            return self._rate_limited(refusal)
        self._failures += 1
        if self._failures >= self._settings.max_attempts:
            raise self._gave_up(said)
        return max(refusal.wait_s or 0.0, self._backoff(self._failures))

    def _rate_limited(self, refusal: Refusal) -> float:
        """Too much at once is no failure of the call: it is tried for as long as the patience lasts.

        The patience starts with the first such answer: waiting in our own queue is not the endpoint's doing.
        """
        self._limited += 1
        if self._limited_since is None:
            self._limited_since = time.monotonic()
        wait = self._backoff(self._limited) if refusal.wait_s is None else refusal.wait_s
        if time.monotonic() - self._limited_since + wait > self._settings.patience_s:
            raise QuotaExhausted(
                f"LLM endpoint '{self._name}' limits the rate for over {self._settings.patience_s:g} s "
                f"(status {refusal.status}: {refusal.message}).",
                retry_after_s=wait,
            )
        # the limiter holds everybody for what the endpoint asked; a little more spreads them
        return random.uniform(0.0, min(1.0, wait)) if refusal.wait_s is not None else wait

    def _backoff(self, times: int) -> float:
        longest = min(LONGEST_BACKOFF_S, self._settings.backoff_s * 2 ** (times - 1))
        return random.uniform(longest / 2, longest)

    def _gave_up(self, why: str) -> CallFailed:
        detail = f"The endpoint failed {self._failures} times, last with {why}."
        return CallFailed(Failure("endpoint", detail))


def _ending(refusal: Refusal | None) -> Ending:
    if refusal is None:
        return "ok"
    return "limited" if refusal.status in OVERLOADED else "failed"


def _used(answered: Answered | None) -> int | None:
    """Tokens by the answer, for the rate of tokens."""
    usage = answered.body.get("usage") if answered is not None and isinstance(answered.body, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and total >= 0 else None
