"""`POST /v1/activations/top`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from interpedia_inference.answers import json_answer
from interpedia_inference.top.service import top_features
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.activations import TopOut, TopRequest


def top_router(reception: Reception) -> APIRouter:
    """The route that ranks features."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/activations/top", summary="Top features of a text", response_model=TopOut, responses=LIVE_PROBLEMS
    )
    async def top(body: TopRequest, request: Request) -> Response:
        """Which features does a text light up? By its maximum, at chosen positions, or at each token.

        Densities are filtered before the k best are taken. BOS is ignored unless asked for.
        """
        async with reception.visit(request, body) as visit:
            return await json_answer(await top_features(visit, body))
        raise AssertionError("a visit hides no exception")

    return router
