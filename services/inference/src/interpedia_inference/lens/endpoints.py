"""`POST /v1/lens`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from interpedia_inference.answers import json_answer
from interpedia_inference.lens.service import read_text
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.activations import LensOut, LensRequest


def lens_router(reception: Reception) -> APIRouter:
    """The route of the logit lens."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/lens",
        summary="Logit lens",
        response_model=LensOut,
        responses=LIVE_PROBLEMS,
    )
    async def lens(body: LensRequest, request: Request) -> Response:
        """What would each layer's stream predict if the model ended there?"""
        async with reception.visit(request, body) as visit:
            return await json_answer(await read_text(visit, body))
        raise AssertionError("a visit hides no exception")

    return router
