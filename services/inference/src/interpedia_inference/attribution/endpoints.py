"""`POST /v1/attribute`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from interpedia_inference.answers import json_answer
from interpedia_inference.attribution.service import attribute_metric
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.effects import AttributeOut, AttributeRequest


def attribution_router(reception: Reception) -> APIRouter:
    """The route that ranks features by their part in a metric."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/attribute",
        summary="Which features push a metric",
        response_model=AttributeOut,
        responses=LIVE_PROBLEMS,
    )
    async def attribution(body: AttributeRequest, request: Request) -> Response:
        """Gradient × activation, attribution patching or integrated gradients; the first ones for real.

        `exact` is what ablating (or patching) the feature really changes: trust it over `attribution`.
        """
        async with reception.visit(request, body) as visit:
            return await json_answer(await attribute_metric(visit, body))
        raise AssertionError("a visit hides no exception")

    return router
