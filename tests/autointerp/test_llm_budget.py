"""A cap holds whatever comes at once; what is reserved is settled by what was used."""

from __future__ import annotations

import asyncio
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_autointerp.llm import (
    BudgetExhausted,
    Caller,
    EndpointSettings,
    LLMRequest,
    PromptScoreRequest,
    Usage,
    create_budget,
    read_budget,
)
from interpedia_autointerp.llm.budget import Amount
from interpedia_autointerp.llm.estimate import (
    START_CHARACTERS_PER_TOKEN,
    TokenEstimator,
    cost_micro,
    worst_case,
)
from interpedia_autointerp.llm.ledger import Closing, Opened, Opening, close_calls, open_calls
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.support.jobs import until
from tests.support.llm import budget_of, calling, calls_of, drain, llm_settings, new_run, question, verdicts
from tests.support.scripted_llm import Script, no_usage, scripted, server_error


def opening(key: str, job_id: uuid.UUID, amount: Amount, run_id: uuid.UUID | None = None) -> Opening:
    return Opening(key, "default", "m", {"q": key}, amount, run_id=run_id, budget=job_id)


@pytest.mark.parametrize("caps", [{"cap_tokens": 0}, {"cap_micro": 0}, {"cap_tokens": 40}])
async def test_a_budget_of_nothing_sends_nothing(database: Database, caps: dict[str, int]) -> None:
    script = Script()
    run_id, job_id = await new_run(database, **caps)
    async with calling(database, script, price_in=1.0, price_out=1.0) as caller:
        with pytest.raises(BudgetExhausted, match="cap") as caught:
            await caller.ask(question(), run_id=run_id, budget=job_id)
        assert (caught.value.job_id, caught.value.reason) == (job_id, "budget")
    assert script.questions == []
    state = await budget_of(database, job_id)
    assert (state.reserved_tokens, state.spent_tokens, state.n_calls) == (0, 0, 0)
    (row,) = await calls_of(database)
    assert (row.state, row.error["type"]) == ("failed", "budget")


async def test_a_cap_in_money_needs_a_price_and_a_job_without_budget_sends_nothing(
    database: Database,
) -> None:
    script = Script()
    run_id, job_id = await new_run(database, cap_micro=1_000_000)
    bare = await new_run(database)
    async with calling(database, script) as caller:
        with pytest.raises(BudgetExhausted, match="no price"):
            await caller.ask(question(), run_id=run_id, budget=job_id)
        with pytest.raises(BudgetExhausted, match="no budget"):
            await caller.ask(question(), budget=bare[1])
        assert (await caller.ask(question())).is_ok, "without a budget nothing is capped"
    assert len(script.questions) == 1


async def test_what_was_reserved_is_settled_by_usage(database: Database) -> None:
    script = Script(judge=lambda body: "four words of it")
    run_id, job_id = await new_run(database, cap_tokens=10_000, cap_micro=10_000)
    names = {"run_id": run_id, "budget": job_id}
    async with calling(database, script, price_in=1.0, price_out=3.0) as caller:
        await caller.capabilities("default")
        script.is_open = False
        asked = asyncio.create_task(caller.ask(question(), **names))
        await until(lambda: _in_flight(script))
        worst = caller.estimate([question()])
        held = await budget_of(database, job_id)
        assert (held.reserved_tokens, held.reserved_micro) == (worst.tokens_high, worst.micro_high)
        script.is_open = True
        answer = await asked
        state = await budget_of(database, job_id)
        assert (state.reserved_tokens, state.reserved_micro, state.n_calls) == (0, 0, 1)
        assert state.spent_tokens == answer.usage.total <= held.reserved_tokens
        assert state.spent_micro == answer.usage.tokens_in + 3 * answer.usage.tokens_out == answer.cost_micro
        script.faults.append(no_usage())
        guessed = await caller.ask(question("Again?"), **names)
        assert guessed.usage.is_estimated
        script.always = server_error()
        assert not (await caller.ask(question("Broken?"), **names)).is_ok
        after = await budget_of(database, job_id)
        assert after.spent_tokens == answer.usage.total + guessed.usage.total, "an error costs nothing"
        assert (after.reserved_tokens, after.n_calls) == (0, 2)


async def _in_flight(script: Script) -> bool:
    return script.in_flight > 0


async def test_a_cap_is_used_up_before_the_job_pauses_and_a_raised_one_goes_on(database: Database) -> None:
    """Thirty at once would reserve far more than the cap; what they really cost is what counts."""
    script = Script()
    run_id, job_id = await new_run(database, cap_tokens=400)
    requests = [question(f"Number {n}?") for n in range(60)]
    names = {"run_id": run_id, "budget": job_id}
    async with calling(database, script) as caller:
        with pytest.raises(BudgetExhausted) as caught:
            await drain(caller, requests, **names)
        assert not caught.value.may_fit_later
        await until(lambda: _settled(database, job_id))
        state = await budget_of(database, job_id)
        worst = caller.estimate(requests[:1]).tokens_high
        assert 400 - worst < state.spent_tokens <= 400
        first = len(script.questions)
        assert 400 // worst < first < 60
        async with database.write() as session:
            await create_budget(session, job_id, cap_tokens=100_000)
        cached = [answer.is_cached for answer in await drain(caller, requests, **names)]
        assert sum(cached) >= first
        assert len(script.questions) == 60
    state = await budget_of(database, job_id)
    assert (state.n_calls, state.reserved_tokens, state.cap_tokens) == (60, 0, 100_000)


async def _settled(database: Database, job_id: uuid.UUID) -> bool:
    return (await budget_of(database, job_id)).reserved_tokens == 0


async def work(own: Database, run_id: uuid.UUID, job_id: uuid.UUID, number: int) -> list[int]:
    """Open and close calls of random cost; what was used."""
    draw = random.Random(number)
    used: list[int] = []
    for turn in range(8):
        amount = Amount(draw.randint(1, 300), draw.randint(1, 600))
        (opened,) = await open_calls(own, [opening(f"{number}-{turn}", job_id, amount, run_id)])
        if isinstance(opened, Opened):
            used.append(draw.randint(0, amount.tokens))
            cost = min(used[-1], amount.micro or 0)
            await close_calls(own, [closing(opened, amount, run_id, job_id, (used[-1], cost))])
    await own.dispose()
    return used


def closing(
    opened: Opened, amount: Amount, run_id: uuid.UUID, job_id: uuid.UUID, used: tuple[int, int]
) -> Closing:
    tokens, cost = used
    return Closing(
        opened.call_id,
        opened.attempt,
        run_id=run_id,
        budget=job_id,
        amount=amount,
        response={"text": f"{tokens}"},
        usage=Usage(tokens, 0, 0),
        cost_micro=cost,
    )


async def test_fifty_workers_never_spend_more_than_the_cap(
    database: Database, database_settings: DatabaseSettings
) -> None:
    """Each worker is a process in all but name: its own connections, so that only the database is shared."""
    cap_tokens, cap_micro = 4_000, 9_000
    run_id, job_id = await new_run(database, cap_tokens=cap_tokens, cap_micro=cap_micro)
    small = database_settings.model_copy(update={"pool_size": 1, "pool_overflow": 0})
    wrong: list[object] = []

    async def watch() -> None:
        while True:
            now = await budget_of(database, job_id)
            is_over = (
                now.spent_tokens + now.reserved_tokens > cap_tokens
                or now.spent_micro + now.reserved_micro > cap_micro
            )
            if is_over or min(now.reserved_tokens, now.reserved_micro) < 0:
                wrong.append(now)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    billed = await asyncio.gather(*(work(Database(small), run_id, job_id, number) for number in range(50)))
    watching.cancel()
    assert wrong == []
    state = await budget_of(database, job_id)
    assert state.spent_tokens == sum(map(sum, billed)) <= cap_tokens
    assert (state.reserved_tokens, state.reserved_micro) == (0, 0)
    assert any(row.state == "failed" for row in await calls_of(database)), "the cap was reached"


async def test_fifty_askers_through_the_endpoint_never_spend_more_than_the_cap(database: Database) -> None:
    script = Script(judge=lambda body: "word " * 20)
    run_id, job_id = await new_run(database, cap_tokens=800)
    with scripted(script) as url:
        callers = [Caller(database, llm_settings(url)) for _ in range(5)]
        await callers[0].capabilities("default")
        results = await asyncio.gather(
            *(
                callers[n % 5].ask(question(f"Question {n}?"), run_id=run_id, budget=job_id)
                for n in range(50)
            ),
            return_exceptions=True,
        )
        for each in callers:
            await each.aclose()
    refused = [each for each in results if isinstance(each, BudgetExhausted)]
    paid = [each for each in results if not isinstance(each, BaseException)]
    assert refused
    assert len(paid) + len(refused) == 50
    state = await budget_of(database, job_id)
    assert state.spent_tokens == sum(answer.usage.total for answer in paid) <= 800
    assert state.reserved_tokens == 0


async def test_a_call_taken_over_is_settled_once_by_each(database: Database) -> None:
    """A process that was thought dead answers after another has asked again: nothing is freed twice."""
    run_id, job_id = await new_run(database, cap_tokens=1_000, cap_micro=1_000)
    amount = Amount(100, 100)
    (first,) = await open_calls(database, [opening("k", job_id, amount, run_id)], lease_s=0)
    (second,) = await open_calls(database, [opening("k", job_id, amount, run_id)])
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert (first.call_id, first.attempt, second.attempt) == (second.call_id, 1, 2)
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens) == (100, 100)

    def end(opened: Opened, used: int) -> Closing:
        return closing(opened, amount, run_id, job_id, (used, used))

    await close_calls(database, [end(first, 30)])
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens, state.spent_micro) == (30, 100, 30)
    await close_calls(database, [end(second, 40)])
    await close_calls(database, [end(second, 40)])
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens, state.spent_micro, state.n_calls) == (70, 0, 70, 2)
    assert (await calls_of(database))[0].response == {"text": "40"}


async def test_there_is_no_budget_where_none_was_made(database: Database) -> None:
    _, job_id = await new_run(database)
    async with database.read() as session:
        assert await read_budget(session, job_id) is None


def test_the_estimate_starts_on_the_safe_side_and_learns() -> None:
    estimator = TokenEstimator()
    request = question("x" * 3_500)
    assert estimator.tokens_in(request) == pytest.approx(1_200, abs=10)
    for _ in range(200):
        estimator.learn(request, Usage(700 + 8, 0, 25))
    assert estimator.units_per_token == pytest.approx(5.0, abs=0.2)
    assert 700 < estimator.tokens_in(request) < 1_000
    assert estimator.likely_out(request) == pytest.approx(25, abs=3)
    for _ in range(2_000):
        estimator.learn(request, Usage(1_750 + 8, 0, 25))
    assert estimator.units_per_token == pytest.approx(2.0, abs=0.1), "what is old fades"
    before = estimator.units_per_token
    estimator.learn(request, Usage(1, 0, 1, is_estimated=True))
    assert estimator.units_per_token == before, "guesses teach nothing"


def test_a_schema_and_scripts_without_spaces_count() -> None:
    estimator = TokenEstimator()
    assert estimator.tokens_in(verdicts("x")) > estimator.tokens_in(question("x")) + 50
    assert estimator.tokens_in(question("河" * 100)) >= 100 * START_CHARACTERS_PER_TOKEN / 3.5
    assert estimator.tokens_in(PromptScoreRequest("y" * 350)) >= 100


@given(
    tokens_in=st.integers(0, 10**6),
    share=st.floats(0, 1),
    tokens_out=st.integers(0, 10**6),
    price=st.floats(0, 100),
)
def test_a_cost_is_never_under_its_price(tokens_in: int, share: float, tokens_out: int, price: float) -> None:
    settings = EndpointSettings(base_url="http://x/v1", model="m", price_in=price, price_out=2 * price)
    usage = Usage(tokens_in, int(share * tokens_in), tokens_out)
    cost = cost_micro(settings, usage)
    assert cost is not None
    assert cost + 1e-3 >= price * (tokens_in + 2 * tokens_out)
    assert cost <= price * (tokens_in + 2 * tokens_out) * (1 + 1e-9) + 1
    cheap = settings.model_copy(update={"price_cached": price / 2})
    assert (cost_micro(cheap, usage) or 0) <= cost


def test_an_estimate_is_a_range_and_money_is_unknown_without_a_price(database: Database) -> None:
    url = "http://127.0.0.1:1/v1"
    requests: list[LLMRequest] = [question("x" * 350), verdicts("x" * 350, allow_repair=True)]
    total = Caller(database, llm_settings(url, price_in=1.0, price_out=1.0)).estimate(requests)
    assert total.calls == 2
    assert 0 < total.tokens_low < total.tokens_high
    assert (total.micro_low, total.micro_high) == (total.tokens_low, total.tokens_high)
    worst = [worst_case(each).total for each in requests]
    assert total.tokens_high == worst[0] + 2 * worst[1]
    unpriced = Caller(database, llm_settings(url))
    assert unpriced.estimate(requests).micro_high is None
    assert unpriced.estimate([]).micro_high == 0
