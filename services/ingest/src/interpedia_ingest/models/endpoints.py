"""`POST /v1/models`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_ingest.models.service import ModelService
from interpedia_shared.auth import AdminCaller
from interpedia_shared.contracts.publishing import ModelAccepted, ModelRequest
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import BadModel, Conflict, Forbidden, IdempotencyMismatch, Unauthorized


def models_router(service: ModelService) -> APIRouter:
    """The route that registers models."""
    router = APIRouter(prefix="/v1/models", tags=["publish"])

    @router.post(
        "",
        status_code=202,
        response_model=ModelAccepted,
        responses=problem_responses(Unauthorized, Forbidden, BadModel, Conflict, IdempotencyMismatch),
    )
    async def register_model(request: ModelRequest, caller: AdminCaller, key: OnceKey = None) -> Response:
        """Register a language model; a worker loads and checks it. 200 when it is here already."""
        once = Once(caller, "POST /v1/models", key, request)
        return (await service.register(caller, request, once)).response()

    return router
