"""`POST /v1/score`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_autointerp.orders.refusals import REFUSALS
from interpedia_autointerp.score.service import ScoreService
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.autointerp import ScoreRequest, WorkAccepted
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses


def score_router(service: ScoreService) -> APIRouter:
    """The route that orders scores."""
    router = APIRouter(prefix="/v1/score", tags=["autointerp"])

    @router.post("", status_code=202, response_model=WorkAccepted, responses=problem_responses(*REFUSALS))
    async def score(request: ScoreRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Score explanations by one scorer or several, each beside another feature's text; a job.

        With `dry_run` the answer is 200 with an estimate, and nothing is called.
        """
        once = Once(caller, "POST /v1/score", key, request)
        return (await service.score(caller, request, once)).response()

    return router
