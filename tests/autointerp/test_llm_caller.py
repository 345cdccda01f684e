"""Answers are paid for once: stored, shared while under way, kept when the asker goes, and after kill -9."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from interpedia_autointerp.llm import Caller, LLMAnswer, LLMRequest, Message, PromptScoreRequest, Sampling
from interpedia_autointerp.llm.request import request_hash
from interpedia_shared.db.session import Database
from interpedia_shared.problems import EndpointFailed, MissingCapability
from tests.support.jobs import until
from tests.support.llm import (
    GOOD,
    budget_of,
    calling,
    calls_of,
    drain,
    links_of,
    llm_settings,
    new_run,
    question,
    verdicts,
)
from tests.support.scripted_llm import Body, Fault, Script, prompt_hash, scripted


def parrot(body: Body) -> str:
    return f"You said: {body['messages'][-1]['content']}"


async def test_a_stored_answer_is_used_by_another_caller_and_run(database: Database) -> None:
    script = Script(judge=lambda body: GOOD)
    first, second = await new_run(database), await new_run(database, cap_tokens=10_000)
    async with calling(database, script) as caller:
        paid = await caller.ask(verdicts(), run_id=first[0])
        again = await caller.ask(verdicts(), run_id=first[0])
        url = (await caller.describe())[0]["base_url"]
        other = Caller(database, llm_settings(url))
        free = await other.ask(verdicts(), run_id=second[0], budget=second[1])
        await other.aclose()
    assert len(script.questions) == 1
    assert (paid.is_cached, again.is_cached, free.is_cached) == (False, True, True)
    assert (paid.data, paid.usage, paid.call_id) == (free.data, free.usage, free.call_id)
    assert await links_of(database) == {(first[0], paid.call_id, True), (second[0], paid.call_id, False)}
    state = await budget_of(database, second[1])
    assert (state.spent_tokens, state.reserved_tokens, state.n_calls, state.n_cached) == (0, 0, 0, 1)


async def test_the_same_question_under_way_is_sent_once(database: Database) -> None:
    script = Script(judge=parrot, is_open=False)
    runs = [await new_run(database, cap_tokens=10_000) for _ in range(3)]
    async with calling(database, script) as caller:
        script.is_open = True
        await caller.capabilities("default")
        script.is_open = False
        asked = [
            asyncio.create_task(caller.ask(question(), run_id=run_id, budget=job_id))
            for run_id, job_id in runs
        ]
        await until(lambda: _true(len(script.questions) == 1))
        script.is_open = True
        answers = await asyncio.gather(*asked)
    assert len(script.questions) == 1
    assert [answer.is_cached for answer in answers] == [False, True, True]
    assert Counter(paid for _, _, paid in await links_of(database)) == {True: 1, False: 2}
    states = [await budget_of(database, job_id) for _, job_id in runs]
    assert [(s.n_calls, s.n_cached, s.spent_tokens > 0) for s in states] == [
        (1, 0, True),
        (0, 1, False),
        (0, 1, False),
    ]


async def _true(value: Any) -> Any:
    return value


async def test_each_part_of_a_question_makes_another_hash(database: Database) -> None:
    base = verdicts()
    others = [
        question(),
        verdicts("Other?"),
        verdicts(repeat=1),
        verdicts(sampling=Sampling(max_tokens=51)),
        verdicts(sampling=Sampling(max_tokens=50, temperature=1.0)),
        verdicts(sampling=Sampling(max_tokens=50, seed=1)),
        LLMRequest((Message("system", "Which of a and b?"),), output=base.output, sampling=base.sampling),
    ]
    hashes = {request_hash("u", "m", each.canonical()) for each in [base, *others]}
    hashes |= {request_hash("u", "n", base.canonical()), request_hash("v", "m", base.canonical())}
    assert len(hashes) == len(others) + 3
    same = [verdicts(allow_repair=True), verdicts(endpoint="another-name")]
    assert {request_hash("u", "m", each.canonical()) for each in same} == {
        request_hash("u", "m", base.canonical())
    }


async def test_who_is_cancelled_leaves_a_sent_question_to_be_stored(database: Database) -> None:
    script = Script(judge=parrot)
    async with calling(database, script) as caller:
        await caller.capabilities("default")
        script.is_open = False
        asked = asyncio.create_task(caller.ask(question()))
        await until(lambda: _true(len(script.questions) == 1))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        script.is_open = True
        answer = await caller.ask(question())
        assert (answer.is_ok, len(script.questions)) == (True, 1)
        assert (await calls_of(database))[0].state == "done"


async def test_what_nobody_waits_for_is_not_sent(database: Database) -> None:
    script = Script(judge=parrot)
    run_id, job_id = await new_run(database, cap_tokens=100_000)
    async with calling(database, script, concurrency=1) as caller:
        await caller.capabilities("default")
        script.is_open = False
        asked = [
            asyncio.create_task(caller.ask(question(f"{n}"), run_id=run_id, budget=job_id)) for n in range(3)
        ]
        await until(lambda: _true(len(script.questions) == 1))
        for each in asked[1:]:
            each.cancel()
        await asyncio.gather(*asked[1:], return_exceptions=True)
        script.is_open = True
        assert (await asked[0]).is_ok
        await until(lambda: _ended(database))
        assert len(script.questions) == 1
        assert Counter(row.state for row in await calls_of(database)) == {"done": 1, "failed": 2}
        state = await budget_of(database, job_id)
        assert (state.reserved_tokens, state.n_calls) == (0, 1)
        # and who comes later is not left without
        assert (await caller.ask(question("1"))).is_ok


async def _ended(database: Database) -> bool:
    return all(row.state != "sent" for row in await calls_of(database))


async def test_many_answers_as_they_land_in_any_order_and_all_of_them(database: Database) -> None:
    script = Script(judge=parrot)
    requests = [question(f"Number {number % 90}") for number in range(100)]
    landed: dict[int, LLMAnswer] = {}
    async with calling(database, script, concurrency=16) as caller:
        await caller.capabilities("default")
        script.is_open = False

        async def gather() -> None:
            async for position, answer in caller.ask_all(requests, window=40):
                landed[position] = answer

        gathering = asyncio.create_task(gather())
        await until(lambda: _true(script.in_flight == 16))
        script.is_open = True
        await gathering
    assert sorted(landed) == list(range(100))
    assert all(landed[n].text == f"You said: Number {n % 90}" for n in range(100))
    assert len(script.questions) == 90
    assert script.most_in_flight == 16


async def test_what_stops_the_job_stops_the_rest_once(database: Database) -> None:
    script = Script(judge=parrot)
    async with calling(database, script, concurrency=4) as caller:
        await caller.capabilities("default")
        script.always = Fault(401, body={"error": "no"})
        with pytest.raises(EndpointFailed):
            await drain(caller, [question(f"{n}") for n in range(50)])
        await caller.aclose()
        assert len(script.questions) < 50


async def test_the_concurrency_gives_way_and_comes_back(database: Database) -> None:
    script = Script(judge=parrot, latency_s=0.02)
    async with calling(database, script, concurrency=16) as caller:
        await caller.capabilities("default")
        script.max_concurrency = 4
        limiter = caller._registry.get("default").line.limiter
        answers = await drain(caller, [question(f"{n}") for n in range(60)])
        assert all(answer.is_ok for answer in answers)
        assert 1 <= limiter.limit < 16
        script.max_concurrency = None
        narrow = limiter.limit
        await drain(caller, [question(f"again {n}") for n in range(100)])
        assert limiter.limit > narrow


async def test_texts_that_neither_json_nor_postgres_like_come_through(database: Database) -> None:
    nasty = 'tab\t nul\x00 half \ud83d bidi \u202e 🏞 "quoted" \\u0000 </script> {{x}} %s :name'
    kept = nasty.replace("\x00", "\u2400").replace("\ud83d", "\ufffd")
    script = Script(judge=lambda body: "echo \x00 " + body["messages"][-1]["content"])
    async with calling(database, script) as caller:
        fresh = await caller.ask(question(nasty))
        stored = await caller.ask(question(nasty))
        assert fresh.text == stored.text == f"echo \u2400 {kept}"
        assert script.questions[0].body["messages"][0]["content"] == kept
        (row,) = await calls_of(database)
        assert row.request["messages"][0]["content"] == kept


async def test_replies_by_prompt_and_usage_as_told(database: Database) -> None:
    script = Script(replies={prompt_hash([{"content": "ping"}]): "pong"})
    async with calling(database, script, price_in=0.1, price_cached=0.05, price_out=0.4) as caller:
        answer = await caller.ask(question("ping"))
        assert answer.text == "pong"
        assert (answer.usage.tokens_in, answer.usage.tokens_out, answer.cost_micro) == (5, 1, 1)
        (row,) = await calls_of(database)
        assert (row.tokens_in, row.tokens_out, row.cost_micro, row.finish_reason) == (5, 1, 1, "stop")
        assert (row.endpoint, row.model, row.state, row.output_mode) == (
            "default",
            "scripted-1",
            "done",
            "text",
        )


@pytest.mark.parametrize("style", ["echo", "vllm"])
async def test_scores_of_a_prompt(database: Database, style: Any) -> None:
    request = PromptScoreRequest("The river flows past the lake.", top_logprobs=2)
    async with calling(database, Script(prompt_logprobs=style)) as caller:
        answer = await caller.ask(request)
        stored = await caller.ask(request)
    tokens = answer.prompt_logprobs
    assert stored.prompt_logprobs == tokens
    assert stored.is_cached
    assert [token.text for token in tokens][1:] == [" river", " flows", " past", " the", " lake", "."]
    assert tokens[0].logprob is None
    assert all(token.logprob < 0 and token.top[token.text] == token.logprob for token in tokens[1:])


async def test_what_the_endpoint_lacks_is_refused_before_it_is_asked(database: Database) -> None:
    script = Script(logprobs=0, prompt_logprobs="ignored", temperature=False, seed=False)
    async with calling(database, script) as caller:
        with pytest.raises(MissingCapability, match="prompt_logprobs"):
            await caller.ask(PromptScoreRequest("text"))
        with pytest.raises(MissingCapability, match="chat_logprobs"):
            await caller.ask(question(sampling=Sampling(top_logprobs=5)))
        assert script.questions == []
        answer = await caller.ask(question(sampling=Sampling(temperature=0.5, seed=3)))
        assert answer.left_out == ("temperature", "seed")
        assert {"temperature", "seed"} & script.questions[0].body.keys() == set()


def _start(url: str, names: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.llm_asker", url, "120"]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ, **names})


async def test_kill_9_loses_what_was_in_flight_and_nothing_is_paid_twice(
    database: Database, database_url: str
) -> None:
    script = Script(judge=parrot)
    run_id, job_id = await new_run(database, cap_tokens=1_000_000, cap_micro=1_000_000)
    names = {"ASKER_RUN": str(run_id), "ASKER_JOB": str(job_id), "INTERPEDIA_DATABASE__URL": database_url}
    with scripted(script) as url:
        process = _start(url, names)
        await until(lambda: _true(len(script.questions) >= 64))
        script.is_open = False
        await until(lambda: _true(script.in_flight >= 8))
        process.kill()
        process.wait()
        done_before = {row.request_hash for row in await calls_of(database) if row.state == "done"}
        sent_before = Counter(each.body["messages"][0]["content"] for each in script.questions)
        held = await budget_of(database, job_id)
        assert 0 < len(done_before) < 120
        assert held.reserved_tokens > 0, "what the dead process had reserved is still there"
        script.is_open = True

        caller = Caller(database, llm_settings(url, price_in=1.0, price_out=1.0))
        requests = [question(f"Question {number}?") for number in range(120)]
        answers = {n: a async for n, a in caller.ask_all(requests, run_id=run_id, budget=job_id)}
        await caller.aclose()
    sent = Counter(each.body["messages"][0]["content"] for each in script.questions)
    assert all(answers[n].text == f"You said: Question {n}?" for n in range(120))
    twice = [name for name, count in sent.items() if count > 1]
    assert all(sent_before[name] == 1 and sent[name] == 2 for name in twice)
    assert len(twice) == sum(sent_before.values()) - len(done_before), "those in flight, and no other"
    assert sum(answer.is_cached for answer in answers.values()) == len(done_before)
    state = await budget_of(database, job_id)
    assert (state.reserved_tokens, state.reserved_micro, state.n_calls) == (0, 0, 120)
    paid = sum(answer.usage.total for answer in answers.values())
    assert state.spent_tokens == paid + held.reserved_tokens, "lost calls count: they may have been billed"


async def test_an_answer_waits_for_a_database_that_is_away(database: Database, database_url: str) -> None:
    script = Script(judge=parrot)
    async with calling(database, script) as caller:
        await caller.capabilities("default")
        script.is_open = False
        asked = asyncio.create_task(caller.ask(question()))
        await until(lambda: _true(len(script.questions) == 1))
        async with database.engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        script.is_open = True
        assert (await asked).is_ok
    assert len(script.questions) == 1
    assert (await calls_of(database))[0].state == "done"
