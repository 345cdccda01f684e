"""`POST /v1/ablate`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from interpedia_inference.ablation.service import ablate_features
from interpedia_inference.answers import json_answer
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.effects import AblateOut, AblateRequest


def ablation_router(reception: Reception) -> APIRouter:
    """The route that takes features out of a text."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/ablate", summary="Take features out of a text", response_model=AblateOut, responses=LIVE_PROBLEMS
    )
    async def ablation(body: AblateRequest, request: Request) -> Response:
        """Loss, chosen logits and next-token distribution with and without a set of features.

        The reconstruction error stays in the stream: only what the features themselves write changes.
        """
        async with reception.visit(request, body) as visit:
            return await json_answer(await ablate_features(visit, body))
        raise AssertionError("a visit hides no exception")

    return router
