"""`/v1/uploads`."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.requests import ClientDisconnect

from interpedia_ingest.refusals import refuse
from interpedia_ingest.uploads.service import UploadService
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.publishing import UploadOut, UploadRequest
from interpedia_shared.idempotency import Once, OnceKey
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import (
    BadUpload,
    Conflict,
    Forbidden,
    TooLarge,
    Unauthorized,
    Unavailable,
    UploadNotFound,
)

UploadId = Annotated[uuid.UUID, Path(description="`id` of the upload.")]


_REFUSALS = (Unauthorized, Forbidden)
_RAW_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def uploads_router(service: UploadService) -> APIRouter:
    """The four routes of uploads."""
    router = APIRouter(prefix="/v1/uploads", tags=["publish"])
    _add_parts(router, service)

    @router.post(
        "",
        status_code=201,
        response_model=UploadOut,
        responses=problem_responses(*_REFUSALS, BadUpload, TooLarge, Conflict, Unavailable),
    )
    async def create_upload(request: UploadRequest, caller: PublishCaller, key: OnceKey = None) -> Response:
        """Declare files; the answer says in which parts to send them."""
        once = Once(caller, "POST /v1/uploads", key, request)
        return (await service.create(caller, request, once)).response()

    @router.get("/{upload_id}", responses=problem_responses(*_REFUSALS, UploadNotFound))
    async def read_upload(upload_id: UploadId, caller: PublishCaller) -> UploadOut:
        """Show which parts have arrived: what is left to send after a broken connection."""
        return await service.read(caller, upload_id)

    @router.post(
        "/{upload_id}/complete",
        responses=problem_responses(*_REFUSALS, UploadNotFound, BadUpload, Conflict, Unavailable),
    )
    async def complete_upload(upload_id: UploadId, caller: PublishCaller) -> UploadOut:
        """Verify sizes and SHA-256 of all files. Completing twice changes nothing."""
        return await service.complete(caller, upload_id)

    return router


def _add_parts(router: APIRouter, service: UploadService) -> None:
    @router.put(
        "/{upload_id}/parts/{n}",
        status_code=204,
        responses=problem_responses(*_REFUSALS, UploadNotFound, BadUpload, Conflict, TooLarge, Unavailable),
        openapi_extra=_RAW_BODY,
    )
    async def send_part(
        upload_id: UploadId,
        n: Annotated[int, Path(ge=1, description="Number of the part, from 1.")],
        request: Request,
        caller: PublishCaller,
        sha256: Annotated[
            str | None,
            Header(
                alias="x-content-sha256", pattern="^[0-9a-fA-F]{64}$", description="Of this part, checked."
            ),
        ] = None,
    ) -> None:
        """Send one part as the raw body. In any order, several at a time, again after a failure."""
        try:
            await service.receive(caller, upload_id, n, body=request.stream(), sha256=sha256)
        except ClientDisconnect as error:
            raise refuse(BadUpload, "body", f"the connection broke within part {n}") from error
