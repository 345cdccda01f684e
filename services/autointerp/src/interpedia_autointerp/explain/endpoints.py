"""`POST /v1/explain`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_autointerp.explain.service import ExplainService
from interpedia_autointerp.orders.refusals import REFUSALS
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.autointerp import ExplainRequest, WorkAccepted
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses


def explain_router(service: ExplainService) -> APIRouter:
    """The route that orders explanations."""
    router = APIRouter(prefix="/v1/explain", tags=["autointerp"])

    @router.post("", status_code=202, response_model=WorkAccepted, responses=problem_responses(*REFUSALS))
    async def explain(request: ExplainRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Explain features by one method or several, and score what comes of it; a job.

        With `dry_run` the answer is 200 with an estimate, and nothing is called.
        """
        once = Once(caller, "POST /v1/explain", key, request)
        return (await service.explain(caller, request, once)).response()

    return router
