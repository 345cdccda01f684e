"""A caller on a scripted endpoint and a real database, and questions to ask it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from sqlalchemy import select

from interpedia_autointerp.llm import (
    BudgetState,
    Caller,
    EndpointSettings,
    JSONFormat,
    LLMAnswer,
    LLMRequest,
    LLMSettings,
    Message,
    Sampling,
    create_budget,
    read_budget,
)
from interpedia_shared.db.base import Base
from interpedia_shared.db.models import Job, LLMCall, Run, RunCall
from interpedia_shared.db.session import Database
from tests.support.factories import make_account
from tests.support.scripted_llm import MODEL, Script, scripted

VERDICTS = JSONFormat(
    "verdicts",
    {
        "type": "object",
        "properties": {
            "verdicts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "fires": {"type": "boolean"}},
                    "required": ["id", "fires"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["verdicts"],
        "additionalProperties": False,
    },
    ids=("a", "b"),
)
GOOD = '{"verdicts": [{"id": "a", "fires": true}, {"id": "b", "fires": false}]}'


def llm_settings(url: str, **more: Any) -> LLMSettings:
    """One endpoint called default that is quick to try again."""
    quick = {"backoff_s": 0.01, "max_attempts": 3, "timeout_s": 10.0, **more}
    return LLMSettings(llm=EndpointSettings(base_url=url, model=MODEL, **quick), llm_endpoints={})


@asynccontextmanager
async def calling(database: Database, script: Script, **settings: Any) -> AsyncIterator[Caller]:
    """A caller to a served script."""
    with scripted(script) as url:
        caller = Caller(database, llm_settings(url, **settings))
        try:
            yield caller
        finally:
            script.is_open = True
            await caller.aclose()


def question(text: str = "What is it?", **more: Any) -> LLMRequest:
    """A question for free text, of few tokens."""
    return LLMRequest((Message("user", text),), **{"sampling": Sampling(max_tokens=50), **more})


def verdicts(text: str = "Which of a and b?", **more: Any) -> LLMRequest:
    """A question for verdicts on a and b."""
    return question(text, output=VERDICTS, **more)


async def drain(caller: Caller, requests: Sequence[LLMRequest], **names: uuid.UUID) -> list[LLMAnswer]:
    """All answers, in the order in which they land."""
    async with aclosing(caller.ask_all(requests, **names)) as answers:
        return [answer async for _, answer in answers]


async def new_run(database: Database, **caps: int | None) -> tuple[uuid.UUID, uuid.UUID]:
    """A run and its job, which has a budget when caps are given."""
    async with database.write() as session:
        account, _ = await make_account(session, f"account-{uuid.uuid4().hex}")
        job = Job(
            id=uuid.uuid4(),
            kind="explain",
            state="running",
            account_id=account,
            params={},
            stages=[],
            total=1,
        )
        session.add(job)
        await session.flush()
        run = Run(
            kind="explain",
            method="m",
            method_version="1",
            params={},
            provenance={},
            account_id=account,
            job_id=job.id,
        )
        session.add(run)
        await session.flush()
        if caps:
            await create_budget(session, job.id, **caps)
        return run.id, job.id


async def budget_of(database: Database, job_id: uuid.UUID) -> BudgetState:
    """Where the job's budget stands."""
    async with database.read() as session:
        state = await read_budget(session, job_id)
    assert state is not None
    return state


async def all_rows(database: Database, table: type[Base]) -> Sequence[Any]:
    """Every row of a table."""
    async with database.read() as session:
        return list(await session.scalars(select(table)))


async def calls_of(database: Database) -> Sequence[LLMCall]:
    """All calls."""
    return await all_rows(database, LLMCall)


async def links_of(database: Database) -> set[tuple[uuid.UUID, int, bool]]:
    """All links of runs with calls: run, call, paid."""
    return {(row.run_id, row.call_id, row.is_paid) for row in await all_rows(database, RunCall)}
