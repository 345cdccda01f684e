"""Prompt search is long: a job of the hosts of its model. What is wrong with it is told before it begins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import func, select

from interpedia_gateway.catalogue.lookup import check_model
from interpedia_gateway.documentation import responses
from interpedia_gateway.live import examples
from interpedia_gateway.live.calls import CLIENT_CLOSED
from interpedia_gateway.live.schemas import SearchAccepted
from interpedia_gateway.live.service import TheLive
from interpedia_gateway.parameters import OnceKey
from interpedia_gateway.state import Gateway, TheGateway
from interpedia_shared.auth import Caller, KeyCaller
from interpedia_shared.contracts.live.effects import PromptSearchRequest, PromptTemplate
from interpedia_shared.db.models import Job
from interpedia_shared.db.session import WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.ids import Slug
from interpedia_shared.jobs import TaskSpec, create_job, job_out
from interpedia_shared.problems import (
    Busy,
    DeadlineExceeded,
    IdempotencyMismatch,
    ModelNotFound,
    SAENotFound,
    TooLarge,
    TooLong,
)
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["live"])
KIND = "prompt_search"
PERCENT = 100
"""Units of work of a search."""


@router.get(
    "/prompt-templates",
    summary="List prompt templates",
    response_class=Response,
    responses=responses(
        Page[PromptTemplate], {"items": [examples.TEMPLATE], "next_cursor": None}, ModelNotFound, Busy
    ),
)
async def list_templates(
    live: TheLive,
    gateway: TheGateway,
    model: Annotated[
        Slug | None,
        Query(
            description="Ask a host of this model; any host if absent.", examples=["smollm2-135m-instruct"]
        ),
    ] = None,
) -> Response:
    """The bundled templates of `POST /v1/prompt-search`, as YAML to start one's own from."""
    if model is not None:
        async with gateway.database.read() as session:
            await check_model(session, model)
    return await live.relay_get("/v1/prompt-templates", model)


@router.post(
    "/prompt-search",
    status_code=202,
    summary="Find the features behind an answer",
    response_class=Response,
    responses=responses(
        SearchAccepted,
        {"job": examples.SEARCH_JOB},
        ModelNotFound,
        SAENotFound,
        TooLong,
        TooLarge,
        Busy,
        DeadlineExceeded,
        IdempotencyMismatch,
        status=202,
    ),
)
async def search_prompts(
    live: TheLive, gateway: TheGateway, caller: KeyCaller, body: PromptSearchRequest, once: OnceKey = None
) -> Response:
    """Which features carry the model's answer on a template of prompts? A job; its result is the answer.

    It tells first how often the model is right, then shortlists features by gradient, ablates the best ones
    for real, compares with control templates, and says how much of the effect the top features explain
    together. A template that does not fit the tokenizer is refused at once. Jobs can be read by anybody, but
    those on private SAEs only by whoever started them.
    """
    claim = Once(caller, f"POST /v1/{KIND}", once, body)
    earlier = await claim.replay(gateway.database)
    if earlier is not None:
        return earlier.response()
    checked = await live.asked(body)
    if checked is None:
        return Response(status_code=CLIENT_CLOSED)
    if checked.status != 200:
        return checked.response()
    return (await _begin(gateway, caller, body, claim)).response()


async def _begin(gateway: Gateway, caller: Caller, body: PromptSearchRequest, claim: Once) -> Answer:
    async with gateway.database.write() as session:
        earlier = await claim.claim(session)
        if earlier is not None:
            return earlier
        await _check_number(session, caller, gateway.settings.max_searches)
        job = await create_job(
            session,
            kind=KIND,
            account_id=caller.account_id,
            params=body.model_dump(mode="json", exclude={"deadline_s"}),
            stages=("search",),
            tasks=[TaskSpec(KIND, 0, 0, {}, weight=PERCENT, queue=f"inference-{body.model}")],
        )
        return await claim.keep(session, Answer.of(202, SearchAccepted(job=await job_out(session, job))))


async def _check_number(session: WriteSession, caller: Caller, limit: int) -> None:
    statement = select(func.count()).where(
        Job.account_id == caller.account_id, Job.kind == KIND, Job.state.in_(("queued", "running"))
    )
    unfinished = await session.scalar(statement) or 0
    if unfinished >= limit:
        raise Busy(
            f"This account has {unfinished} unfinished prompt searches, the limit is {limit}.",
            extensions={"limit": limit, "value": unfinished},
            retry_after_s=30,
        )
