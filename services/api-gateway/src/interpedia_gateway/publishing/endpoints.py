"""Publishing: authenticated and documented here, carried out by the ingest API.

Bodies are checked by the schemas that ingest uses: a wrong field is refused before anything is sent on.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Response

from interpedia_gateway import examples
from interpedia_gateway.documentation import Responses, problems_only, responses
from interpedia_gateway.forwarding import Forwarder
from interpedia_gateway.parameters import OnceKey
from interpedia_gateway.publishing.forward import forwarder
from interpedia_shared.auth import administrator, publisher
from interpedia_shared.contracts.publishing import (
    CorpusAccepted,
    CorpusRequest,
    ModelAccepted,
    ModelRequest,
    SAERequest,
    SAEsAccepted,
    UploadOut,
    UploadRequest,
)
from interpedia_shared.problems import (
    BadModel,
    BadSAE,
    BadUpload,
    Conflict,
    CorpusNotFound,
    Forbidden,
    IdempotencyMismatch,
    ModelNotFound,
    Problem,
    TooLarge,
    UploadNotFound,
)

router = APIRouter(prefix="/v1", tags=["publish"])
PUBLISHER = [Depends(publisher)]
ADMINISTRATOR = [Depends(administrator)]
TheForwarder = Annotated[Forwarder, Depends(forwarder)]
UploadPath = Annotated[uuid.UUID, Path(description="`id` of the upload.")]
PartHash = Annotated[
    str | None,
    Header(alias="x-content-sha256", pattern="^[0-9a-fA-F]{64}$", description="Of this part; checked."),
]
_PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": "(the part's bytes)",
            }
        },
    }
}


def _answers(model: Any, example: Any, status: int, *problems: type[Problem]) -> Responses:
    return responses(model, example, Forbidden, TooLarge, *problems, status=status)


@router.post(
    "/uploads",
    status_code=201,
    summary="Announce files",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_answers(UploadOut, examples.UPLOAD, 201, BadUpload, Conflict, IdempotencyMismatch),
)
async def create_upload(ingest: TheForwarder, body: UploadRequest, once: OnceKey = None) -> Response:
    """Say which files will come, with sizes and SHA-256; the answer says in which parts to send them."""
    return await ingest.post("/v1/uploads", body, once=once)


@router.get(
    "/uploads/{upload}",
    summary="One upload",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_answers(UploadOut, examples.UPLOAD, 200, UploadNotFound),
)
async def read_upload(ingest: TheForwarder, upload: UploadPath) -> Response:
    """Which parts have arrived: what is left to send after a broken connection."""
    return await ingest.get(f"/v1/uploads/{upload}")


@router.put(
    "/uploads/{upload}/parts/{n}",
    status_code=204,
    summary="Send a part",
    dependencies=PUBLISHER,
    response_class=Response,
    responses={
        204: {"description": "The part arrived."},
        **problems_only(Forbidden, TooLarge, UploadNotFound, BadUpload, Conflict),
    },
    openapi_extra=_PART_BODY,
)
async def send_part(
    ingest: TheForwarder,
    upload: UploadPath,
    n: Annotated[int, Path(ge=1, le=1_000_000, description="Number of the part, from 1.")],
    sha256: PartHash = None,
) -> Response:
    """One part as the raw body; in any order, several at a time, again after a failure."""
    return await ingest.put_stream(f"/v1/uploads/{upload}/parts/{n}", sha256=sha256)


@router.post(
    "/uploads/{upload}/complete",
    summary="Complete an upload",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_answers(
        UploadOut, {**examples.UPLOAD, "state": "complete"}, 200, UploadNotFound, BadUpload, Conflict
    ),
)
async def complete_upload(ingest: TheForwarder, upload: UploadPath) -> Response:
    """Check sizes and SHA-256 of all files. Completing twice changes nothing."""
    return await ingest.post(f"/v1/uploads/{upload}/complete")


@router.post(
    "/saes",
    status_code=202,
    summary="Publish SAEs",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_answers(
        SAEsAccepted,
        examples.SAES_ACCEPTED,
        202,
        BadSAE,
        Conflict,
        IdempotencyMismatch,
        ModelNotFound,
        CorpusNotFound,
        UploadNotFound,
    ),
)
async def publish_saes(ingest: TheForwarder, body: SAERequest, once: OnceKey = None) -> Response:
    """Publish one SAE or several of one model; a job builds their dashboards.

    Everything is checked before anything is kept: a refusal names the field and the fact.
    """
    return await ingest.post("/v1/saes", body, once=once)


@router.post(
    "/models",
    status_code=202,
    summary="Register a model",
    dependencies=ADMINISTRATOR,
    response_class=Response,
    responses=_answers(ModelAccepted, examples.MODEL_ACCEPTED, 202, BadModel, Conflict, IdempotencyMismatch),
)
async def register_model(ingest: TheForwarder, body: ModelRequest, once: OnceKey = None) -> Response:
    """Register a language model; needs the scope `admin`, for the server then reads files or a hub.

    One that is registered already with the same source is answered with 200.
    """
    return await ingest.post("/v1/models", body, once=once)


@router.post(
    "/corpora",
    status_code=202,
    summary="Publish a corpus",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_answers(
        CorpusAccepted,
        examples.CORPUS_ACCEPTED,
        202,
        BadUpload,
        Conflict,
        IdempotencyMismatch,
        ModelNotFound,
        UploadNotFound,
    ),
)
async def publish_corpus(ingest: TheForwarder, body: CorpusRequest, once: OnceKey = None) -> Response:
    """Tokenise an uploaded text data set for one model; a job does it.

    One that is here already with the same text is answered with 200.
    """
    return await ingest.post("/v1/corpora", body, once=once)
