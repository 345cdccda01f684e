"""A steering answer as server-sent events: `start`, a `token` for each token, then `done` or `error`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

import structlog
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from interpedia_inference.steering.run import SteeringRun
from interpedia_shared.problem_handlers import problem_response
from interpedia_shared.problems import InternalError, Problem

MEDIA_TYPE = "text/event-stream"
_SEND_TIMEOUT_S = 30.0
"""A reader who takes nothing for so long is as good as gone: its rows and its place are others' by then."""
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

log = structlog.get_logger(__name__)


class EventStream(Response):
    """Sends frames as they come; the visit behind them notices a caller that hangs up."""

    media_type = MEDIA_TYPE

    def __init__(self, frames: AsyncGenerator[bytes]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the frames end or the reader stops taking them."""
        del scope, receive
        async with aclosing(self._frames) as frames:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            try:
                async for frame in frames:
                    async with asyncio.timeout(_SEND_TIMEOUT_S):
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                log.info("stream_not_read", seconds=_SEND_TIMEOUT_S)


def frame(event: str, data: str | bytes) -> bytes:
    """One event. JSON has no line breaks outside strings, and escapes those inside."""
    raw = data.encode() if isinstance(data, str) else data
    return b"event: " + event.encode() + b"\ndata: " + raw + b"\n\n"


async def stream_frames(
    run: SteeringRun, *, stack: AsyncExitStack, request: Request
) -> AsyncGenerator[bytes]:
    """Write out a run, from before its first token is there.

    Args:
        run: Prepared: whatever refuses a request has refused it by then.
        stack: Holds the visit; it is left when the stream ends, however it ends.
        request: For the error event.
    """
    try:
        async with stack:
            yield frame("start", run.start().model_dump_json())
            async with aclosing(run.tokens()) as tokens:
                async for token in tokens:
                    yield frame("token", token.model_dump_json())
            yield frame("done", run.answer().model_dump_json())
    except Problem as problem:
        yield _error_frame(request, problem)
    except Exception as error:  # noqa: BLE001 (the status is sent: only the stream can still tell of a crash)
        yield _crash_frame(request, error)


def _crash_frame(request: Request, error: Exception) -> bytes:
    log.error("stream_failed", path=request.url.path, exc_info=error)
    return _error_frame(request, InternalError())


def _error_frame(request: Request, problem: Problem) -> bytes:
    return frame("error", bytes(problem_response(request, problem).body))
