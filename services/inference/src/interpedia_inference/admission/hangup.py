"""Noticing that a caller closed the connection, by the server's own word rather than by polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.requests import Request

from interpedia_inference.admission.ticket import Ticket
from interpedia_shared.problems import ClientGone


@asynccontextmanager
async def watched(request: Request, ticket: Ticket) -> AsyncGenerator[None]:
    """End the ticket when the caller hangs up. The request's body must have been read."""
    task = asyncio.create_task(_watch(request, ticket))
    try:
        yield
    finally:
        task.cancel()


async def _watch(request: Request, ticket: Ticket) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.end(ClientGone())
