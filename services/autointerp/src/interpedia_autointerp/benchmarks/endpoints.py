"""`POST /v1/benchmarks`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_autointerp.benchmarks.service import BenchmarkService
from interpedia_autointerp.orders.refusals import REFUSALS
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.autointerp import BenchmarkRequest, WorkAccepted
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses


def benchmarks_router(service: BenchmarkService) -> APIRouter:
    """The route that orders a comparison of explainers."""
    router = APIRouter(prefix="/v1/benchmarks", tags=["autointerp"])

    @router.post("", status_code=202, response_model=WorkAccepted, responses=problem_responses(*REFUSALS))
    async def compare(request: BenchmarkRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Compare explainers on the same frozen tasks, with baselines and paired differences; a job.

        Its `result.report` has the tables. Nothing of it appears among the features' explanations.
        """
        once = Once(caller, "POST /v1/benchmarks", key, request)
        return (await service.compare(caller, request, once)).response()

    return router
