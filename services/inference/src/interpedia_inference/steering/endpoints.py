"""`POST /v1/steer`."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Request, Response

from interpedia_inference.answers import json_answer
from interpedia_inference.steering.events import EventStream, stream_frames
from interpedia_inference.steering.run import SteeringRun
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.steering import SteerOut, SteerRequest


def steering_router(reception: Reception) -> APIRouter:
    """The route that generates with interventions."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/steer", summary="Generate with interventions", response_model=SteerOut, responses=LIVE_PROBLEMS
    )
    async def steer(body: SteerRequest, request: Request) -> Response:
        """Default and steered text side by side, from one seed.

        With `stream` the answer is server-sent events. What refuses the request has its own status; the
        `start` event comes as soon as it is accepted, and what goes wrong later is an `error` event.
        """
        async with AsyncExitStack() as stack:
            visit = await stack.enter_async_context(reception.visit(request, body))
            run = SteeringRun(visit, body)
            await run.prepare()
            if body.stream:
                return EventStream(stream_frames(run, stack=stack.pop_all(), request=request))
            async with aclosing(run.tokens()) as tokens:
                async for _ in tokens:
                    pass
            return await json_answer(run.answer())
        raise AssertionError("a visit hides no exception")

    return router
