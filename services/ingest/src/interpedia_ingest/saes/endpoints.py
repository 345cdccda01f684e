"""`POST /v1/saes`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_ingest.saes.service import SAEService
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.publishing import SAERequest, SAEsAccepted
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import (
    BadSAE,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    Unauthorized,
    Unavailable,
)


def saes_router(service: SAEService) -> APIRouter:
    """The route that publishes SAEs."""
    router = APIRouter(prefix="/v1/saes", tags=["publish"])

    @router.post(
        "",
        status_code=202,
        response_model=SAEsAccepted,
        responses=problem_responses(
            Unauthorized, Forbidden, BadSAE, Conflict, IdempotencyMismatch, Unavailable
        ),
    )
    async def publish_saes(request: SAERequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Publish one SAE or several of a model; the job builds their dashboards.

        Everything is checked before anything is kept: a refusal names the field and the fact.
        """
        once = Once(caller, "POST /v1/saes", key, request)
        return (await service.publish(caller, request, once)).response()

    return router
