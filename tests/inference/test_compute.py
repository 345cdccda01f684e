"""The compute thread by itself: what one caller does must not reach another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.errors import EngineError, OutOfRange
from interpedia_engine.generation import GenerationRequest, Sampling
from interpedia_engine.hooks import Hook
from interpedia_engine.sites import site
from interpedia_inference.admission import Ticket
from interpedia_inference.compute.compute import Compute
from interpedia_inference.compute.contract import RawActivations, ReadJob
from interpedia_inference.metrics import TOKENS
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.problems import ClientGone, DeadlineExceeded, InternalError, Unavailable
from tests.support.live_world import tiny_model

HOOK = Hook("resid_post", 2)
PROMPT = (1, 40, 41, 42)


@pytest.fixture
async def compute() -> AsyncIterator[Compute]:
    compute = Compute(InferenceSettings(torch_threads=1, activation_cache_bytes=0))
    compute.start(tiny_model())
    yield compute
    await compute.stop()


@pytest.fixture
async def ticket() -> AsyncIterator[Ticket]:
    ticket = Ticket("test", 60)
    yield ticket
    ticket.close()


def held(compute: Compute) -> threading.Event:
    """The thread does nothing until the event is set."""
    begun, released = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        released.wait(60)

    compute.running.submit(hold)
    assert begun.wait(60)
    return released


def raw(*ids: int) -> ReadJob:
    return ReadJob(ids, [RawActivations(HOOK)])


def expected(*ids: int) -> np.ndarray:
    return capture(tiny_model(), torch.tensor([ids]), [HOOK])[HOOK][0].numpy()


def request(new: int = 5, **changes: Any) -> GenerationRequest:
    return GenerationRequest(PROMPT, new, sampling=Sampling(temperature=0.0), **changes)


async def test_a_bad_batch_mate_fails_alone(compute: Compute, ticket: Ticket) -> None:
    others = [Ticket("test", 60) for _ in range(3)]
    released = held(compute)
    good = [asyncio.create_task(compute.read(raw(1, 50 + n, 60), others[n])) for n in range(3)]
    bad = asyncio.create_task(compute.read(raw(1, 10_000_000), ticket))
    await asyncio.sleep(0.05)
    released.set()
    with pytest.raises(OutOfRange, match="10000000"):
        await bad
    for number, task in enumerate(good):
        (found,) = await task
        np.testing.assert_allclose(found, expected(1, 50 + number, 60), atol=2e-5)
    for other in others:
        other.close()


async def test_equal_texts_run_once(compute: Compute, ticket: Ticket) -> None:
    before = TOKENS.labels("read")._value.get()
    jobs = [ReadJob((1, 50, 60), [RawActivations(Hook("resid_post", layer))]) for layer in range(4)] * 5
    results = await compute.read_all(jobs, ticket)
    assert TOKENS.labels("read")._value.get() - before == 3
    np.testing.assert_allclose(results[2][0], expected(1, 50, 60), atol=2e-5)


async def test_texts_asked_for_again_are_remembered_within_bounds(ticket: Ticket) -> None:
    size = 3 * 64 * 4
    settings = InferenceSettings(torch_threads=1, activation_cache_bytes=5 * size)
    compute = Compute(settings)
    compute.start(tiny_model())
    try:
        counter = TOKENS.labels("read")._value
        before = counter.get()
        for _ in range(3):
            (found,) = await compute.read(raw(1, 50, 60), ticket)
            np.testing.assert_allclose(found, expected(1, 50, 60), atol=2e-5)
        assert counter.get() - before == 3
        for n in range(6):
            await compute.read(raw(1, 70 + n, 60), ticket)
        await compute.read(raw(1, 50, 60), ticket)
        assert counter.get() - before == 3 * 8
    finally:
        await compute.stop()


async def test_what_is_over_is_not_begun(compute: Compute) -> None:
    ticket = Ticket("test", 60)
    before = TOKENS.labels("read")._value.get()
    released = held(compute)
    reading = asyncio.create_task(compute.read(raw(1, 50, 60), ticket))
    await asyncio.sleep(0.05)
    ticket.end(ClientGone())
    with pytest.raises(ClientGone):
        await reading
    released.set()
    other = Ticket("test", 60)
    await compute.read(raw(1, 51), other)
    assert TOKENS.labels("read")._value.get() - before == 2
    other.close()


async def test_generators_are_run_to_their_end_with_other_work_between(
    compute: Compute, ticket: Ticket
) -> None:
    seen: list[int] = []

    def steps() -> Iterator[int]:
        for number in range(200):
            seen.append(number)
            yield number
        return "done"

    told: list[int] = []
    begun = asyncio.Event()

    def tell(number: int) -> None:
        told.append(number)
        begun.set()

    calling = asyncio.create_task(compute.call(steps, ticket, progress=tell))
    await begun.wait()
    await compute.read(raw(1, 50), ticket)
    assert len(seen) < 200
    assert await calling == "done"
    assert told == list(range(200))
    assert await compute.call(lambda: 42, ticket) == 42


async def test_a_call_ends_between_two_steps(compute: Compute) -> None:
    ticket = Ticket("test", 0.2)
    closed: list[bool] = []

    def steps() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    with pytest.raises(DeadlineExceeded):
        await compute.call(steps, ticket)
    other = Ticket("test", 60)
    await compute.call(lambda: None, other)
    await compute.call(lambda: None, other)
    assert closed == [True]
    other.close()


async def test_errors_of_a_call_are_its_callers(compute: Compute, ticket: Ticket) -> None:
    def refuses() -> None:
        raise EngineError("metric", "is nonsense")

    def breaks() -> None:
        raise ZeroDivisionError("secret")

    with pytest.raises(EngineError, match="nonsense"):
        await compute.call(refuses, ticket)
    with pytest.raises(InternalError) as told:
        await compute.call(breaks, ticket)
    assert "secret" not in told.value.detail
    assert await compute.call(lambda: 1, ticket) == 1


async def test_a_call_that_leaves_hooks_or_grad_mode_fails_and_harms_nobody(
    compute: Compute, ticket: Ticket
) -> None:
    model = tiny_model()

    def leaves_a_hook() -> Iterator[None]:
        handle = site(model.hf, HOOK, architecture="llama").edit(lambda x: x * 0)
        try:
            yield
        finally:
            handle.remove()

    def leaves_grad() -> Iterator[None]:
        torch.set_grad_enabled(True)
        yield

    for leaves in (leaves_a_hook, leaves_grad):
        with pytest.raises(InternalError):
            await compute.call(leaves, ticket)
        (found,) = await compute.read(raw(1, 50, 60), ticket)
        np.testing.assert_allclose(found, expected(1, 50, 60), atol=2e-5)
        assert await compute.call(torch.is_grad_enabled, ticket) is False


async def test_rows_of_several_callers_are_generated_together(compute: Compute) -> None:
    tickets = [Ticket("test", 60) for _ in range(3)]

    async def tokens(ticket: Ticket) -> list[list[int | None]]:
        found: list[list[int | None]] = [[], []]
        async with compute.generate([request(), request(7)], ticket) as stream:
            async for events in stream:
                for index, event in events:
                    found[index].append(event.token_id)
        return found

    alone = await tokens(tickets[0])
    assert [len(one) for one in alone] == [5, 7]
    assert alone[0] == alone[1][:5]
    assert await asyncio.gather(*map(tokens, tickets)) == [alone] * 3
    for ticket in tickets:
        ticket.close()


async def test_leaving_a_stream_frees_its_rows_within_a_token(compute: Compute, ticket: Ticket) -> None:
    stream = compute.generate([request(400), request(400)], ticket)
    async with stream:
        await anext(stream)
        await anext(stream)
    counter = TOKENS.labels("generate")._value
    assert await compute.call(lambda: len(compute.running.generating), ticket) == 0
    before = counter.get()
    await asyncio.sleep(0.1)
    assert counter.get() == before


async def test_a_hang_up_frees_the_rows_too(compute: Compute, ticket: Ticket) -> None:
    gone = Ticket("test", 60)
    stream = compute.generate([request(400)], gone)
    await anext(stream)
    gone.end(ClientGone())
    with pytest.raises(ClientGone):
        await anext(stream)
    assert await compute.call(lambda: len(compute.running.generating), ticket) == 0


async def test_one_output_may_end_before_the_other(compute: Compute, ticket: Ticket) -> None:
    lengths = [0, 0]
    async with compute.generate([request(30), request(30)], ticket) as stream:
        async for events in stream:
            for index, _ in events:
                lengths[index] += 1
            if lengths[0] == 3:
                stream.drop(0)
    assert lengths == [3, 30]


async def test_outputs_that_never_fit_are_refused_and_others_wait_their_turn(ticket: Ticket) -> None:
    settings = InferenceSettings(torch_threads=1, max_rows=2, max_cache_tokens=64)
    compute = Compute(settings)
    compute.start(tiny_model())
    try:
        with pytest.raises(OutOfRange):
            compute.generate([request(100)], ticket)
        with pytest.raises(OutOfRange):
            compute.generate([request(1)] * 3, ticket)

        async def run(ticket: Ticket) -> int:
            async with compute.generate([request(20), request(20)], ticket) as stream:
                return sum([len(events) async for events in stream])

        assert await asyncio.gather(*(run(ticket) for _ in range(5))) == [40] * 5
    finally:
        await compute.stop()


async def test_who_waits_when_it_stops_is_told(ticket: Ticket) -> None:
    compute = Compute(InferenceSettings(torch_threads=1))
    compute.start(tiny_model())
    released = held(compute)
    reading = asyncio.create_task(compute.read(raw(1, 50), ticket))
    stream = compute.generate([request(50)], ticket)
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(compute.stop())
    await asyncio.sleep(0.05)
    released.set()
    await stopping
    with pytest.raises(Unavailable):
        await reading
    with pytest.raises(Unavailable):
        await anext(stream)
    with pytest.raises(Unavailable):
        await compute.read(raw(1, 50), ticket)
