"""An SAE's files in SAELens format, so that its dashboards can be checked by anybody."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import select

from interpedia_gateway.answers import VARY, matches
from interpedia_gateway.catalogue.lookup import SAEPlace, find_sae
from interpedia_gateway.documentation import file_responses, with_304
from interpedia_gateway.parameters import ModelPath, SAEPath
from interpedia_gateway.state import Gateway, TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.db.models import SAE
from interpedia_shared.problems import ModelNotFound, NotFound, SAENotFound, Unavailable

router = APIRouter(prefix="/v1", tags=["catalogue"])
FileName = Literal["cfg.json", "sae_weights.safetensors"]
_DESCRIPTION = "The file. `Range` is honoured, so that a broken download goes on where it stopped."
_EXAMPLES: dict[str, Any] = {
    "application/json": {"architecture": "topk", "d_in": 576, "d_sae": 3072, "k": 32},
    "application/octet-stream": "(safetensors)",
}


@router.get(
    "/models/{model}/saes/{sae}/weights/{file}",
    summary="Download an SAE's file",
    response_class=Response,
    responses={
        **with_304(
            file_responses(_EXAMPLES, _DESCRIPTION, ModelNotFound, SAENotFound, NotFound, Unavailable)
        ),
        206: {"description": "The bytes that `Range` asked for."},
        416: {"description": "`Range` lies outside the file."},
    },
)
async def download(
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    model: ModelPath,
    sae: SAEPath,
    file: Annotated[FileName, Path(description="One of the two files.")],
) -> Response:
    """`cfg.json` or `sae_weights.safetensors`: `SAE.load_from_disk` of sae-lens takes a folder with both."""
    async with gateway.database.read() as session:
        place = await find_sae(session, model, sae, caller)
        config = await session.scalar(select(SAE.config).where(SAE.id == place.id))
    if place.weights_uri is None or place.weights_sha256 is None:
        raise NotFound(
            f"{model}/{sae} ({place.architecture}) has no weights.", extensions={"model": model, "sae": sae}
        )
    if file == "cfg.json":
        return _config(request, place, orjson.dumps(config, option=orjson.OPT_INDENT_2))
    return _weights(request, gateway, place)


def _headers(place: SAEPlace, etag: str) -> dict[str, str]:
    scope = "private" if place.is_private else "public"
    return {"ETag": etag, "Cache-Control": f"{scope}, no-cache", "Vary": VARY}


def _config(request: Request, place: SAEPlace, content: bytes) -> Response:
    headers = _headers(place, f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"')
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _weights(request: Request, gateway: Gateway, place: SAEPlace) -> Response:
    headers = _headers(place, f'"{place.weights_sha256}"')
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = gateway.blobs.path(place.weights_uri or "")
    if not path.is_file():
        raise Unavailable("The SAE's weights cannot be read right now.", retry_after_s=30)
    # Range requests count bytes of the file itself, so nothing on the way may compress it.
    headers["Content-Disposition"] = 'attachment; filename="sae_weights.safetensors"'
    return FileResponse(path, headers=headers, media_type="application/octet-stream")
