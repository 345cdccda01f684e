"""Answers written in a thread: a large one must not keep the event loop busy."""

from __future__ import annotations

import asyncio

from fastapi import Response
from pydantic import BaseModel


async def json_answer(answer: BaseModel) -> Response:
    """The answer as the route's response."""
    written = await asyncio.to_thread(answer.model_dump_json)
    return Response(written, media_type="application/json")
