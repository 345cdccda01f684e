"""The route that exports an SAE's features."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from interpedia_gateway.answers import VARY
from interpedia_gateway.documentation import file_responses
from interpedia_gateway.export.encoders import NDJSON, Encoder, Parquet
from interpedia_gateway.export.slots import SlotResponse, take_slot
from interpedia_gateway.export.stream import stream
from interpedia_gateway.features.dashboards import Setting, provenance_of
from interpedia_gateway.features.service import Asked, Features
from interpedia_gateway.parameters import ModelPath, SAEPath, VersionQuery
from interpedia_gateway.state import BaseURL, TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.problems import ModelNotFound, SAENotFound, Unavailable, VersionNotFound

router = APIRouter(prefix="/v1", tags=["bulk"])
Format = Literal["parquet", "ndjson"]
MEDIA_TYPES: dict[Format, str] = {
    "parquet": "application/vnd.apache.parquet",
    "ndjson": "application/x-ndjson",
}
_EXAMPLES: dict[str, Any] = {
    MEDIA_TYPES["parquet"]: "(Parquet: a row per feature, provenance in the schema's metadata)",
    MEDIA_TYPES["ndjson"]: '{"ref":"smollm2-135m-instruct/15-res-3k/0","index":0,"density":0.0041}\n',
}


@router.get(
    "/models/{model}/saes/{sae}/export",
    summary="Export all features",
    response_class=StreamingResponse,
    responses=file_responses(
        _EXAMPLES,
        "A row per feature, by index. The transfer breaks off rather than leave a feature out.",
        ModelNotFound,
        SAENotFound,
        VersionNotFound,
        Unavailable,
    ),
)
async def export(  # noqa: PLR0917 (mostly dependencies)
    gateway: TheGateway,
    caller: AnyCaller,
    model: ModelPath,
    sae: SAEPath,
    base: BaseURL,
    format: Annotated[Format, Query(description="File format.")] = "parquet",  # noqa: A002
    version: VersionQuery = None,
) -> Response:
    """Statistics, logit lens, neighbours and examples of every feature, as one streamed file.

    Parquet carries the provenance in its schema's metadata, under `interpedia`; for NDJSON the `Link` header
    says where it is.
    """
    async with gateway.database.read() as session:
        features = Features(gateway, session, caller, base)
        place = await features.place(Asked(model, sae))
        setting = await features.setting(place, version)
    headers = {
        "Content-Disposition": f'attachment; filename="{model}_{sae}_v{setting.version.id}.{format}"',
        "Cache-Control": "private, no-store" if place.is_private else "public, no-cache",
        "Vary": VARY,
        "Link": f'<{base}/v1/models/{model}/saes/{sae}>; rel="describedby"',
    }
    body = stream(gateway, setting, _encoder(format, setting))
    await take_slot(gateway.exports)
    return SlotResponse(body, gateway.exports, MEDIA_TYPES[format], headers)


def _encoder(format: Format, setting: Setting) -> Encoder:  # noqa: A002
    if format == "ndjson":
        return NDJSON()
    provenance = provenance_of(setting.place, setting.version, setting.caller)
    about = {
        "model": setting.place.model,
        "sae": setting.place.sae,
        "provenance": provenance.model_dump(mode="json"),
    }
    return Parquet({"interpedia": orjson.dumps(about).decode()})
