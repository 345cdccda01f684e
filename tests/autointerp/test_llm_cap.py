"""What is billed is never over the cap, however an endpoint fails; two processes never pay for the same."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_autointerp.llm import BudgetExhausted, Caller, JobPaused
from interpedia_autointerp.llm.budget import Amount
from interpedia_autointerp.llm.estimate import worst_case
from interpedia_autointerp.llm.ledger import Closing, Opened, Opening, UnderWay, extend_call, open_calls
from interpedia_shared.db.session import Database
from interpedia_shared.problems import EndpointFailed
from tests.support.jobs import until
from tests.support.llm import (
    GOOD,
    budget_of,
    calling,
    calls_of,
    llm_settings,
    new_run,
    question,
    verdicts,
)
from tests.support.scripted_llm import Fault, Script, bad_request, not_openai, quota, scripted, slow

DIGITS = "3.14159 2.71828 " * 200


async def test_a_request_is_sent_again_only_when_that_fits_beside_what_was_lost(database: Database) -> None:
    script = Script(judge=lambda body: GOOD)
    worst = worst_case(verdicts()).total
    for room, sent in ((1.5, 1), (2.5, 2)):
        run_id, job_id = await new_run(database, cap_tokens=int(room * worst))
        async with calling(database, script, timeout_s=0.3, max_attempts=5) as caller:
            await caller.capabilities("default")
            script.seen.clear()
            script.faults.extend([slow(1.0)] * 4)
            failure = (await caller.ask(verdicts(repeat=sent), run_id=run_id, budget=job_id)).failure
            assert failure is not None
            assert "The budget does not allow another call" in failure.detail
            assert len(script.questions) == sent
            script.faults.clear()
        state = await budget_of(database, job_id)
        assert (state.spent_tokens, state.reserved_tokens) == (sent * worst, 0)


async def test_a_lost_request_counts_with_the_longest_answer_beside_the_one_that_came(
    database: Database,
) -> None:
    script = Script(judge=lambda body: GOOD)
    run_id, job_id = await new_run(database, cap_tokens=100_000)
    async with calling(database, script, timeout_s=0.3) as caller:
        await caller.capabilities("default")
        script.faults.append(slow(1.0))
        answer = await caller.ask(verdicts(), run_id=run_id, budget=job_id)
        plain = await caller.ask(verdicts(repeat=1), run_id=run_id, budget=job_id)
    assert answer.is_ok
    assert answer.usage.total == plain.usage.total + worst_case(verdicts()).total
    state = await budget_of(database, job_id)
    assert state.spent_tokens == answer.usage.total + plain.usage.total
    assert state.reserved_tokens == 0


async def _sent(script: Script, count: int) -> bool:
    return len(script.questions) >= count


@pytest.mark.parametrize("last", [bad_request("No such key", 401), quota(), bad_request("too long")])
async def test_what_was_lost_is_charged_however_the_call_ends(database: Database, last: Fault) -> None:
    script = Script(judge=lambda body: GOOD)
    run_id, job_id = await new_run(database, cap_tokens=100_000)
    async with calling(database, script, timeout_s=0.3) as caller:
        await caller.capabilities("default")
        script.faults.extend([slow(1.0), last])
        try:
            answer = await caller.ask(verdicts(), run_id=run_id, budget=job_id)
        except (EndpointFailed, JobPaused):
            answer = None
    assert answer is None or not answer.is_ok
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens) == (worst_case(verdicts()).total, 0)


async def test_an_answer_that_cannot_be_read_is_charged(database: Database) -> None:
    script = Script()
    run_id, job_id = await new_run(database, cap_tokens=100_000)
    async with calling(database, script) as caller:
        await caller.capabilities("default")
        script.faults.append(not_openai())
        assert not (await caller.ask(question(), run_id=run_id, budget=job_id)).is_ok
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens) == (worst_case(question()).total, 0)


async def test_digits_are_no_prose(database: Database) -> None:
    """They take far more tokens than the average of prose says, also when much prose was seen before."""
    script = Script()
    run_id, job_id = await new_run(database, cap_tokens=1_000)
    async with calling(database, script) as caller:
        for number in range(3):
            await caller.ask(question("incomprehensibilities " * 200, repeat=number))
        before = len(script.questions)
        with pytest.raises(BudgetExhausted):
            await caller.ask(question(DIGITS), run_id=run_id, budget=job_id)
        assert len(script.questions) == before
        # a control: without a cap it is sent, and is indeed over it
        assert (await caller.ask(question(DIGITS))).usage.total > 1_000


@given(st.text())
def test_the_bound_has_a_token_for_every_byte(text: str) -> None:
    size = len(text.encode(errors="replace"))
    assert worst_case(question(text)).tokens_in >= size


async def test_two_processes_that_ask_the_same_pay_once(database: Database) -> None:
    script = Script(judge=lambda body: GOOD)
    (first_run, first_job), (second_run, second_job) = [
        await new_run(database, cap_tokens=10_000) for _ in range(2)
    ]
    with scripted(script) as url:
        # the lease is over many times while the answer is waited for, unless it is renewed
        one, two = (Caller(database, llm_settings(url), lease_s=0.4) for _ in range(2))
        await one.capabilities("default")
        await two.capabilities("default")
        script.is_open = False
        asked = asyncio.create_task(one.ask(verdicts(), run_id=first_run, budget=first_job))
        await until(lambda: _sent(script, 1))
        asked_too = asyncio.create_task(two.ask(verdicts(), run_id=second_run, budget=second_job))
        await asyncio.sleep(1.2)
        assert len(script.questions) == 1
        script.is_open = True
        answers = await asyncio.gather(asked, asked_too)
        await one.aclose()
        await two.aclose()
    assert len(script.questions) == 1
    assert [answer.is_cached for answer in answers] == [False, True]
    spent = [await budget_of(database, job_id) for job_id in (first_job, second_job)]
    assert [state.spent_tokens for state in spent] == [answers[0].usage.total, 0]
    assert [state.reserved_tokens for state in spent] == [0, 0]


async def test_a_lease_that_is_over_is_taken_with_all_that_was_reserved(database: Database) -> None:
    run_id, job_id = await new_run(database, cap_tokens=1_000)
    amount = Amount(100, 0)
    wanted = Opening("k", "default", "m", {}, amount, run_id=run_id, budget=job_id)
    (dead,) = await open_calls(database, [wanted], lease_s=0)
    assert isinstance(dead, Opened)
    ending = Closing(dead.call_id, dead.attempt, run_id=run_id, budget=job_id, amount=amount)
    assert await extend_call(database, ending) is None
    assert (await budget_of(database, job_id)).reserved_tokens == 200
    (alive,) = await open_calls(database, [wanted], lease_s=60)
    assert isinstance(alive, Opened)
    (other,) = await open_calls(database, [wanted], lease_s=60)
    assert isinstance(other, UnderWay)
    state = await budget_of(database, job_id)
    assert (state.spent_tokens, state.reserved_tokens) == (200, 100), "both requests may have been billed"
    (row,) = await calls_of(database)
    assert (row.state, row.attempts, json.dumps(row.error["reserved"]["tokens"])) == ("sent", 2, "100")
