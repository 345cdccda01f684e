"""Routes of features."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from interpedia_gateway import examples
from interpedia_gateway.answers import answer
from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_gateway.documentation import responses, with_304
from interpedia_gateway.features.batch import read_batch
from interpedia_gateway.features.filters import FeatureFilter, feature_filter
from interpedia_gateway.features.schemas import (
    BatchOut,
    BatchRequest,
    Dashboard,
    FeatureSummary,
    NeighboursOut,
    VectorOut,
)
from interpedia_gateway.features.service import Asked, Features
from interpedia_gateway.features.vectors import Which
from interpedia_gateway.keysets import ThePaging
from interpedia_gateway.parameters import IndexPath, ModelPath, SAEPath, VersionQuery
from interpedia_gateway.state import BaseURL, TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.problems import (
    BadCursor,
    FeatureNotFound,
    ModelNotFound,
    NotFound,
    SAENotFound,
    VersionNotFound,
)
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["features"])
_ONE = (ModelNotFound, SAENotFound, FeatureNotFound, VersionNotFound)


async def asked_of(model: ModelPath, sae: SAEPath, version: VersionQuery = None) -> Asked:
    """The SAE of a path, and the build of `version=` (a dependency)."""
    return Asked(model, sae, version)


TheAsked = Annotated[Asked, Depends(asked_of)]


def _answer(request: Request, body: BaseModel, place: SAEPlace) -> Response:
    return answer(request, body, private=place.is_private)


@router.get(
    "/models/{model}/saes/{sae}/features",
    summary="List features",
    responses=with_304(
        responses(
            Page[FeatureSummary],
            examples.page(examples.FEATURE_SUMMARY),
            ModelNotFound,
            SAENotFound,
            VersionNotFound,
            BadCursor,
        )
    ),
)
async def list_features(  # noqa: PLR0917 (all but the filters are dependencies)
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    asked: TheAsked,
    wanted: Annotated[FeatureFilter, Depends(feature_filter)],
    paging: ThePaging,
    base: BaseURL,
) -> Response:
    """Features of one SAE, filtered and ordered; a page deep in the list costs what the first one does.

    Each comes with the explanation that is shown with it.
    """
    async with gateway.database.read() as session:
        found, place = await Features(gateway, session, caller, base).list(asked, wanted, paging)
    return answer(request, found, private=place.is_private)


@router.get(
    "/models/{model}/saes/{sae}/features/{index}",
    summary="A feature's dashboard",
    responses=with_304(responses(Dashboard, examples.DASHBOARD, *_ONE)),
)
async def get_feature(
    request: Request, gateway: TheGateway, caller: AnyCaller, asked: TheAsked, index: IndexPath, base: BaseURL
) -> Response:
    """All that is stored of a feature, its provenance, and a program that reproduces its top activation.

    Explanations come and go, so that even with `version=` the answer is not kept without asking again.
    """
    async with gateway.database.read() as session:
        found, place = await Features(gateway, session, caller, base).dashboard(asked, index)
    return await asyncio.to_thread(_answer, request, found, place)


@router.get(
    "/models/{model}/saes/{sae}/features/{index}/neighbours",
    summary="A feature's neighbours",
    responses=with_304(responses(NeighboursOut, examples.NEIGHBOURS, *_ONE)),
)
async def get_neighbours(
    request: Request, gateway: TheGateway, caller: AnyCaller, asked: TheAsked, index: IndexPath, base: BaseURL
) -> Response:
    """The nearest features by decoder cosine and those that fire together with it, with their own numbers."""
    async with gateway.database.read() as session:
        found, place = await Features(gateway, session, caller, base).neighbours(asked, index)
    return answer(request, found, private=place.is_private)


@router.get(
    "/models/{model}/saes/{sae}/features/{index}/vector",
    summary="A feature's direction",
    responses=with_304(
        responses(VectorOut, examples.VECTOR, ModelNotFound, SAENotFound, FeatureNotFound, NotFound)
    ),
)
async def get_vector(  # noqa: PLR0917 (mostly dependencies)
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    model: ModelPath,
    sae: SAEPath,
    index: IndexPath,
    base: BaseURL,
    which: Annotated[Which, Query(description="The decoder's row or the encoder's column.")] = "decoder",
) -> Response:
    """The feature's row of the decoder, or column of the encoder, as the SAE's file has it."""
    async with gateway.database.read() as session:
        found, place = await Features(gateway, session, caller, base).vector(Asked(model, sae), index, which)
    return answer(request, found, private=place.is_private)


@router.post(
    "/features/batch",
    summary="Many features at once",
    responses=responses(BatchOut, examples.BATCH),
)
async def batch_features(
    gateway: TheGateway, caller: AnyCaller, wanted: BatchRequest, base: BaseURL
) -> Response:
    """Up to 200 features of any SAEs, in the order asked for; what is not there gets a problem of its own.

    With `include: dashboard` up to 20.
    """
    async with gateway.database.read() as session:
        features = Features(gateway, session, caller, base)
        found = await read_batch(features, session, wanted, gateway.settings.docs_url)
    content = await asyncio.to_thread(found.model_dump_json)
    return Response(content, media_type="application/json")
