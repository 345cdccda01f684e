"""A job's events as a stream that can be taken up again after any of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator

from sqlalchemy import select
from sse_starlette import ServerSentEvent

from interpedia_gateway.state import Gateway
from interpedia_shared.db.models import Job, JobEvent
from interpedia_shared.jobs import JobEventOut, read_events
from interpedia_shared.jobs.schemas import JOB_ENDED


async def follow(gateway: Gateway, job: uuid.UUID, after: int) -> AsyncGenerator[ServerSentEvent]:
    """Yield events with ids above `after`, old and new, until the job has ended and all were given."""
    async with gateway.event_streams:
        while True:
            has_ended, events = await _read(gateway, job, after)
            for event in events:
                after = event.id
                yield _sent(event)
            if has_ended and not events:
                return
            if not events:
                await asyncio.sleep(gateway.settings.events_poll_s)


async def _read(gateway: Gateway, job: uuid.UUID, after: int) -> tuple[bool, list[JobEvent]]:
    """Whether the job had ended, and its next events. The state comes first: its last event is then there."""
    async with gateway.database.read() as session:
        state = await session.scalar(select(Job.state).where(Job.id == job))
        return state is None or state in JOB_ENDED, await read_events(session, job, after=after)


def _sent(event: JobEvent) -> ServerSentEvent:
    body = JobEventOut.model_validate(event).model_dump_json()
    return ServerSentEvent(body, event=event.type, id=str(event.id), sep="\n")
