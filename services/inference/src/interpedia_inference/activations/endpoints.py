"""`POST /v1/activations`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from interpedia_inference.activations.service import read_activations
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.activations import ActivationsOut, ActivationsRequest


def activations_router(reception: Reception) -> APIRouter:
    """The route that reads texts."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/activations",
        summary="Activations of features on texts",
        response_model=ActivationsOut,
        responses=LIVE_PROBLEMS,
    )
    async def activations(body: ActivationsRequest, request: Request) -> Response:
        """Values at each token of the features, all active features of SAEs, and dot products asked for."""
        async with reception.visit(request, body) as visit:
            # Written by hand in a thread: a large answer must not keep the event loop busy.
            return Response(await read_activations(visit, body), media_type="application/json")
        raise AssertionError("a visit hides no exception")

    return router
