"""The limiter and the reading of waits, without a network: the clock is the test's own."""

from __future__ import annotations

import asyncio
import random
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_autointerp.llm.batches import Batches
from interpedia_autointerp.llm.limiter import WINDOW_S, Limiter, Ticket
from interpedia_autointerp.llm.refusals import duration, exhausted_for, retry_after, understand
from interpedia_autointerp.llm.transport import Answered


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def granted(tasks: list[asyncio.Task[Ticket]]) -> list[Ticket]:
    return [task.result() for task in tasks if task.done()]


async def line_up(limiter: Limiter, *tokens: int) -> list[asyncio.Task[Ticket]]:
    tasks = [asyncio.create_task(limiter.acquire(each)) for each in tokens]
    await settle()
    return tasks


async def end(tasks: list[asyncio.Task[Ticket]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_too_much_halves_the_concurrency_once_for_all_that_were_under_way() -> None:
    clock = Clock()
    limiter = Limiter(16, clock=clock)
    tickets = granted(await line_up(limiter, *[1] * 16))
    clock.now += 1
    for ticket in tickets[:5]:
        limiter.release(ticket, "limited")
    assert limiter.limit == 8
    clock.now += 1
    for ticket in tickets[5:]:
        limiter.release(ticket, "ok")
    assert 8 < limiter.limit <= 10
    late = granted(await line_up(limiter, 1))
    limiter.release(late[0], "limited")
    assert limiter.limit < 8
    for _ in range(10):
        clock.now += 1
        limiter.release(granted(await line_up(limiter, 1))[0], "limited")
    assert limiter.limit == 1, "never none"
    for _ in range(2_000):
        limiter.release(granted(await line_up(limiter, 1))[0], "ok")
    assert limiter.limit == 16, "never over what is set"


async def test_requests_of_any_minute_stay_within_the_limit() -> None:
    clock = Clock()
    limiter = Limiter(100, requests_per_minute=3, clock=clock)
    tasks = await line_up(limiter, *[1] * 5)
    assert len(granted(tasks)) == 3
    clock.now += WINDOW_S - 0.1
    limiter.hold(0)
    await settle()
    assert len(granted(tasks)) == 3
    clock.now += 0.2
    limiter.hold(0)
    await settle()
    assert len(granted(tasks)) == 5
    await end(tasks)


async def test_tokens_of_any_minute_stay_within_the_limit_and_are_corrected_by_usage() -> None:
    clock = Clock()
    limiter = Limiter(100, tokens_per_minute=1000, clock=clock)
    tasks = await line_up(limiter, 600, 600)
    first = granted(tasks)
    assert len(first) == 1
    limiter.release(first[0], "ok", tokens=300)
    await settle()
    assert len(granted(tasks)) == 2, "what was not used is free again"
    huge = await line_up(limiter, 5000)
    assert granted(huge) == []
    clock.now += WINDOW_S + 1
    limiter.hold(0)
    await settle()
    assert len(granted(huge)) == 1, "a call over the limit by itself goes alone"
    await end([*tasks, *huge])


async def test_a_hold_holds_everybody_and_ends_by_itself() -> None:
    limiter = Limiter(4)
    limiter.hold(0.2)
    tasks = await line_up(limiter, 1, 1)
    assert granted(tasks) == []
    begun = time.monotonic()
    await asyncio.gather(*tasks)
    assert time.monotonic() - begun > 0.1


async def test_who_gives_up_waiting_leaves_no_gap() -> None:
    limiter = Limiter(1)
    tasks = await line_up(limiter, 1, 1, 1)
    tasks[1].cancel()
    await settle()
    limiter.release(tasks[0].result(), "ok")
    await settle()
    assert [task.done() for task in tasks] == [True, True, True]
    limiter.release(tasks[2].result(), "ok")
    assert limiter.in_flight == 0
    holder = await line_up(limiter, 1)
    waiting = asyncio.create_task(limiter.acquire(1))
    await settle()
    limiter.release(holder[0].result(), "ok")
    waiting.cancel()  # in the same turn in which it was let go
    await settle()
    assert limiter.in_flight == 0


@given(st.integers(1, 8), st.integers(1, 12), st.randoms(use_true_random=False))
def test_no_window_is_ever_over_its_limits(concurrency: int, per_minute: int, draw: random.Random) -> None:
    asyncio.run(_hammer(concurrency, per_minute, draw))


async def _hammer(concurrency: int, per_minute: int, draw: random.Random) -> None:
    clock = Clock()
    limiter = Limiter(concurrency, requests_per_minute=per_minute, clock=clock)
    tasks = await line_up(limiter, *[1] * 30)
    started: list[float] = []
    running: list[Ticket] = []
    seen: set[int] = set()
    for _ in range(200):
        for number, task in enumerate(tasks):
            if task.done() and number not in seen:
                seen.add(number)
                running.append(task.result())
                started.append(task.result().started)
        assert len(running) == limiter.in_flight <= concurrency
        if len(seen) == 30:
            break
        clock.now += draw.choice([0.0, 1.0, 10.0, 61.0])
        if running and draw.random() < 0.8:
            limiter.release(
                running.pop(draw.randrange(len(running))), draw.choice(["ok", "failed", "limited"])
            )
        limiter.hold(0)
        await settle()
    for at in started:
        assert sum(at - WINDOW_S < other <= at for other in started) <= per_minute
    await end(tasks)


def answered(status: int, body: Any = None, **headers: str) -> Answered:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answered(status, named, body, "words", 0.1)


def test_waits_are_read_in_all_their_spellings() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    in_a_minute = retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert retry_after({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    for nonsense in ("soon", "-5", "nan", "inf", ""):
        assert retry_after({"retry-after": nonsense}) is None
    assert (duration("6m0s"), duration("20ms"), duration("1h2m3.5s"), duration("8")) == (360, 0.02, 3723.5, 8)
    assert (duration("later"), duration("5 s"), duration("")) == (None, None, None)
    counters = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
    assert retry_after(counters) == 2
    assert exhausted_for({**counters, "x-ratelimit-remaining-requests": "1"}) is None
    tokens = {"x-ratelimit-remaining-tokens": "50", "x-ratelimit-reset-tokens": "6s"}
    assert (exhausted_for(tokens, tokens=50), exhausted_for(tokens, tokens=51)) == (None, 6)


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (answered(429, {"error": {"message": "slow down"}}), "limited"),
        (answered(429, {"error": {"message": "m", "code": "insufficient_quota"}}), "quota"),
        (answered(503, None, retry_after="3"), "limited"),
        (answered(503, None), "broken"),
        (answered(500, "text"), "broken"),
        (answered(200, {"error": {"message": "upstream", "code": 429}}), "limited"),
        (answered(200, {"error": {"message": "upstream", "code": 502}, "choices": []}), "broken"),
        (answered(400, {"object": "error", "message": "too long", "code": 400}), "rejected"),
        (answered(422, {"detail": "wrong"}), "rejected"),
        (answered(404, {"error": "model 'x' not found"}), "model_not_found"),
        (answered(402, {"error": {"message": "Insufficient credits"}}), "quota"),
        (answered(302), "redirected"),
    ],
)
def test_each_refusal_is_understood(answer: Answered, meaning: str) -> None:
    refusal = understand(answer)
    assert refusal is not None
    assert refusal.meaning == meaning


def test_an_answer_is_no_refusal() -> None:
    assert understand(answered(200, {"choices": [], "error": None})) is None


async def test_batches_join_what_waits_and_give_each_its_own() -> None:
    sizes: list[int] = []
    gate = asyncio.Event()

    async def flush(items: Any) -> list[Any]:
        sizes.append(len(items))
        await gate.wait()
        return [ValueError(item) if item == 13 else item * 2 for item in items]

    batches: Batches[int, int] = Batches(flush, most=50)
    tasks = [asyncio.create_task(batches.submit(0))]
    await settle()
    tasks += [asyncio.create_task(batches.submit(n)) for n in range(1, 101)]
    await settle()
    tasks[7].cancel()
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sizes == [1, 50, 50]
    assert [r for n, r in enumerate(results) if n not in {7, 13}] == [
        2 * n for n in range(101) if n not in {7, 13}
    ]
    assert isinstance(results[13], ValueError)
    assert isinstance(results[7], asyncio.CancelledError)


async def test_a_batch_that_fails_fails_all_of_it_and_nothing_else() -> None:
    async def flush(items: Any) -> list[Any]:
        if 1 in items:
            raise OSError("gone")
        return list(items)

    batches: Batches[int, int] = Batches(flush)
    assert await asyncio.gather(batches.submit(1), batches.submit(2), return_exceptions=True) != [1, 2]
    assert await batches.submit(3) == 3
