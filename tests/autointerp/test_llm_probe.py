"""What an endpoint can do is found out by trying, kept, and asked for by methods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from interpedia_autointerp.llm import Caller, Capabilities, require
from interpedia_shared.db.models import LLMEndpoint
from interpedia_shared.db.session import Database
from interpedia_shared.problems import EndpointFailed, MissingCapability
from tests.support.llm import GOOD, all_rows, calling, llm_settings, question, verdicts
from tests.support.scripted_llm import Script, not_openai, rate_limited, scripted, server_error

EVERYTHING = {
    "json_schema": True,
    "json_object": True,
    "chat_logprobs": 2,
    "prompt_logprobs": "echo",
    "prompt_top": 2,
    "seed": True,
    "temperature": True,
    "usage": True,
    "max_tokens_field": "max_tokens",
    "reported_model": "scripted-1",
    "system_fingerprint": "fp_1",
}


@pytest.mark.parametrize(
    ("script", "differs", "how"),
    [
        ({}, {}, {"json_schema": "enforced", "prompt_logprobs": "tokens scored"}),
        (
            {"json_schema": "ignored"},
            {"json_schema": False},
            {"json_schema": "accepted and ignored: the answer is no JSON"},
        ),
        ({"json_schema": "refused"}, {"json_schema": False}, {"json_schema": "json_schema is not supported"}),
        ({"json_object": "refused"}, {"json_object": False}, {"json_object": "not supported"}),
        ({"logprobs": 0}, {"chat_logprobs": 0}, {"chat_logprobs": "accepted and ignored"}),
        ({"prompt_logprobs": "vllm"}, {"prompt_logprobs": "vllm"}, {"prompt_logprobs": "vllm: "}),
        (
            {"prompt_logprobs": "ignored"},
            {"prompt_logprobs": None, "prompt_top": 0},
            {"prompt_logprobs": "accepted and ignored"},
        ),
        (
            {"prompt_logprobs": None},
            {"prompt_logprobs": None, "prompt_top": 0},
            {"prompt_logprobs": "echo is not supported"},
        ),
        (
            {"seed": False, "temperature": False, "max_tokens_field": "max_completion_tokens"},
            {"seed": False, "temperature": False, "max_tokens_field": "max_completion_tokens"},
            {"temperature": "Unsupported parameter: 'temperature'"},
        ),
        ({"usage": False}, {"usage": False}, {"usage": "not in the answer"}),
    ],
)
async def test_each_capability_is_found_or_missed_with_the_reason(
    database: Database, script: dict[str, Any], differs: dict[str, Any], how: dict[str, str]
) -> None:
    async with calling(database, Script(**script)) as caller:
        found = await caller.capabilities("default")
    values = found.to_json()
    said = values.pop("how")
    assert values == {**EVERYTHING, **differs}
    assert all(words in said[name] for name, words in how.items()), said


async def test_the_finding_is_kept_until_the_endpoint_is_another(database: Database) -> None:
    script = Script()
    with scripted(script) as url:
        for _ in range(2):
            caller = Caller(database, llm_settings(url))
            await caller.capabilities("default")
            seen = len(script.seen)
            await caller.aclose()
        assert len(script.seen) == seen <= 9
        (row,) = await all_rows(database, LLMEndpoint)
        assert Capabilities.from_json({**row.capabilities, "of_a_later_version": 1}).json_schema

        script.json_schema = "refused"
        caller = Caller(database, llm_settings(url))
        assert (await caller.capabilities("default")).json_schema
        before = len(script.seen)
        assert (await caller.capabilities("default", fresh=True)).json_schema
        assert len(script.seen) == before, "not twice within a minute: no budget counts a probe"
        async with database.write() as session:
            await session.execute(
                update(LLMEndpoint).values(probed_at=datetime.now(UTC) - timedelta(seconds=61))
            )
        assert not (await caller.capabilities("default", fresh=True)).json_schema
        described = await caller.describe()
        await caller.aclose()
        assert described[0]["capabilities"]["json_schema"] is False
        assert described[0]["probed_at"] is not None

        old = Caller(database, llm_settings(url, probe_max_age_s=1e-6))
        before = len(script.seen)
        await old.capabilities("default")
        await old.aclose()
        assert len(script.seen) > before
        (other,) = await Caller(database, llm_settings(f"{url}/elsewhere")).describe()
        assert other["capabilities"] is None


async def test_a_probe_waits_out_what_passes(database: Database) -> None:
    script = Script()
    script.faults.extend([rate_limited("0"), server_error(), rate_limited(None)])
    async with calling(database, script) as caller:
        found = await caller.capabilities("default")
    assert found.json_schema
    assert found.seed


async def test_what_is_no_such_api_is_a_problem_and_is_not_kept(database: Database) -> None:
    script = Script(always=not_openai())
    async with calling(database, script) as caller:
        with pytest.raises(EndpointFailed, match="none of an OpenAI-compatible API") as caught:
            await caller.capabilities("default")
        assert caught.value.reason == "not_openai"
        script.always = None
        script.key = "right"
        with pytest.raises(EndpointFailed, match="refuses the key"):
            await caller.capabilities("default")
        assert await all_rows(database, LLMEndpoint) == []
        script.key = None
        assert (await caller.capabilities("default")).usage


def test_a_method_that_needs_more_is_refused_with_the_reason() -> None:
    found = Capabilities(
        json_object=True, chat_logprobs=5, how={"prompt_logprobs": "echo: ignored", "seed": "400"}
    )
    require(found, ["chat", "json", "chat_logprobs"], method="detection", endpoint="default")
    with pytest.raises(MissingCapability) as caught:
        require(found, ["json", "prompt_logprobs", "seed"], method="simulation", endpoint="default")
    problem = caught.value
    assert problem.status == 422
    assert "simulation cannot run with endpoint 'default'" in problem.detail
    assert "lacks prompt_logprobs (echo: ignored); seed (400)." in problem.detail
    assert problem.extensions["missing"] == {"prompt_logprobs": "echo: ignored", "seed": "400"}


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        ({}, "json_schema"),
        ({"json_schema": "ignored"}, "json_object"),
        ({"json_schema": "refused", "json_object": "refused"}, "text"),
    ],
)
async def test_the_mode_follows_what_was_found(database: Database, script: dict[str, Any], mode: str) -> None:
    talkative = (
        GOOD
        if mode != "text"
        else f"<think>a?</think>Sure, {{here}} you are:\n```json\n{GOOD}\n```\nBye {{}}"
    )
    async with calling(database, Script(judge=lambda body: talkative, **script)) as caller:
        answer = await caller.ask(verdicts())
        assert answer.failure is None
        assert answer.output_mode == mode
        assert set(answer.items_by_id()) == {"a", "b"}
        assert (await caller.ask(question())).output_mode == "text"
