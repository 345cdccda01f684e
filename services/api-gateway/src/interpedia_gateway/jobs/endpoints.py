"""Routes of jobs. Reading is open; stopping and restarting is for the account that started the job."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse

from interpedia_gateway import examples
from interpedia_gateway.answers import answer
from interpedia_gateway.catalogue.lookup import MAX_ID
from interpedia_gateway.documentation import file_responses, responses, with_304
from interpedia_gateway.jobs.events import follow
from interpedia_gateway.jobs.service import Jobs
from interpedia_gateway.keysets import ThePaging
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import AnyCaller, KeyCaller
from interpedia_shared.jobs import JobOut
from interpedia_shared.jobs.schemas import JobState
from interpedia_shared.problems import BadCursor, Conflict, Forbidden, JobNotFound, Unavailable
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["jobs"])
JobPath = Annotated[uuid.UUID, Path(description="Id of the job.")]
Kind = Literal[
    "register_model",
    "tokenize_corpus",
    "build_dashboards",
    "prompt_search",
    "explain",
    "score",
    "redteam",
    "benchmark",
    "embed",
]


@router.get(
    "/jobs",
    summary="List jobs",
    responses=with_304(responses(Page[JobOut], examples.page(examples.JOB), BadCursor)),
)
async def list_jobs(
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    paging: ThePaging,
    state: Annotated[JobState | None, Query(description="Only in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only of this kind.")] = None,
) -> Response:
    """Jobs, newest first."""
    found = await Jobs(gateway.database).list(caller, state=state, kind=kind, paging=paging)
    return answer(request, found, private=caller is not None)


@router.get(
    "/jobs/{job}", summary="One job", responses=with_304(responses(JobOut, examples.JOB, JobNotFound))
)
async def read_job(request: Request, gateway: TheGateway, caller: AnyCaller, job: JobPath) -> Response:
    """A job's state, how far it is, its tasks by state, and its result or error."""
    return answer(request, await Jobs(gateway.database).get(caller, job), private=caller is not None)


@router.get(
    "/jobs/{job}/events",
    summary="A job's events as they happen",
    response_class=EventSourceResponse,
    responses=file_responses(
        {"text/event-stream": examples.EVENTS},
        "Server-sent events; the stream ends when the job has.",
        JobNotFound,
        Unavailable,
    ),
)
async def job_events(
    gateway: TheGateway,
    caller: AnyCaller,
    job: JobPath,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_ID, description="Go on after this event, as browsers do by themselves."),
    ] = None,
) -> Response:
    """What happened so far and what happens next. Comments keep the connection alive while nothing does."""
    await Jobs(gateway.database).get(caller, job)
    if gateway.event_streams.locked():
        raise Unavailable("As many event streams are open as may be.", retry_after_s=5)
    settings = gateway.settings
    return EventSourceResponse(
        follow(gateway, job, last_event_id or 0), ping=settings.events_heartbeat_s, sep="\n"
    )


@router.post(
    "/jobs/{job}/cancel",
    summary="Cancel a job",
    responses=responses(JobOut, {**examples.JOB, "cancel_requested": True}, JobNotFound, Forbidden, Conflict),
)
async def cancel(gateway: TheGateway, caller: KeyCaller, job: JobPath) -> JobOut:
    """Drop what has not started and ask what runs to stop. Cancelling twice changes nothing."""
    return await Jobs(gateway.database).cancel(caller, job)


@router.post(
    "/jobs/{job}/retry",
    summary="Retry a job",
    responses=responses(JobOut, {**examples.JOB, "state": "queued"}, JobNotFound, Forbidden, Conflict),
)
async def retry(gateway: TheGateway, caller: KeyCaller, job: JobPath) -> JobOut:
    """Run again what died or was cancelled; what is done stays done."""
    return await Jobs(gateway.database).retry(caller, job)
