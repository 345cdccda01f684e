"""`POST /v1/corpora`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from interpedia_ingest.corpora.service import CorpusService
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.publishing import CorpusAccepted, CorpusRequest
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import (
    BadUpload,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    Unauthorized,
)


def corpora_router(service: CorpusService) -> APIRouter:
    """The route that publishes corpora."""
    router = APIRouter(prefix="/v1/corpora", tags=["publish"])

    @router.post(
        "",
        status_code=202,
        response_model=CorpusAccepted,
        responses=problem_responses(
            Unauthorized, Forbidden, Invalid, BadUpload, Conflict, IdempotencyMismatch
        ),
    )
    async def publish_corpus(request: CorpusRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Tokenise an uploaded corpus for one model. 200 when it is here already."""
        once = Once(caller, "POST /v1/corpora", key, request)
        return (await service.publish(caller, request, once)).response()

    return router
