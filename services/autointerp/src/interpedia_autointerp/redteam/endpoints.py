"""`POST /v1/redteam`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_autointerp.orders.refusals import REFUSALS
from interpedia_autointerp.redteam.service import RedTeamService
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.autointerp import RedTeamRequest, WorkAccepted
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses


def redteam_router(service: RedTeamService) -> APIRouter:
    """The route that orders a red-team."""
    router = APIRouter(prefix="/v1/redteam", tags=["autointerp"])

    @router.post("", status_code=202, response_model=WorkAccepted, responses=problem_responses(*REFUSALS))
    async def attack(request: RedTeamRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Try to refute a hypothesis with texts by an LLM, by the caller, or both; a job.

        The job's `result.report` has a verdict for every round and the strongest counterexamples.
        """
        once = Once(caller, "POST /v1/redteam", key, request)
        return (await service.attack(caller, request, once)).response()

    return router
