"""Routes of the catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from interpedia_gateway import examples
from interpedia_gateway.answers import answer
from interpedia_gateway.catalogue.saes import SAECatalogue, SAEFilter
from interpedia_gateway.catalogue.schemas import (
    CorpusDetail,
    CorpusOut,
    ModelOut,
    ReleaseOut,
    SAEDetail,
    SAEOut,
)
from interpedia_gateway.catalogue.service import Catalogue
from interpedia_gateway.documentation import responses, with_304
from interpedia_gateway.keysets import ThePaging
from interpedia_gateway.parameters import CorpusPath, ModelPath, SAEPath
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.problems import BadCursor, CorpusNotFound, ModelNotFound, ReleaseNotFound, SAENotFound
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["catalogue"])

Architecture = Literal[
    "standard",
    "gated",
    "topk",
    "abstopk",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "identity",
]


@router.get(
    "/models",
    summary="List models",
    responses=with_304(responses(Page[ModelOut], examples.page(examples.MODEL_OUT), BadCursor)),
)
async def list_models(
    request: Request, gateway: TheGateway, caller: AnyCaller, paging: ThePaging
) -> Response:
    """All language models here, by id."""
    async with gateway.database.read() as session:
        found = await Catalogue(session, caller).models(paging)
    return answer(request, found, private=caller is not None)


@router.get(
    "/models/{model}",
    summary="One model",
    responses=with_304(responses(ModelOut, examples.MODEL_OUT, ModelNotFound)),
)
async def get_model(request: Request, gateway: TheGateway, caller: AnyCaller, model: ModelPath) -> Response:
    """A language model with its shape and where its weights come from."""
    async with gateway.database.read() as session:
        found = await Catalogue(session, caller).model(model)
    return answer(request, found, private=caller is not None)


@router.get(
    "/releases",
    summary="List releases",
    responses=with_304(responses(Page[ReleaseOut], examples.page(examples.RELEASE_OUT), BadCursor)),
)
async def list_releases(
    request: Request, gateway: TheGateway, caller: AnyCaller, paging: ThePaging
) -> Response:
    """SAEs that were published together, by id; only those with an SAE that lists show."""
    async with gateway.database.read() as session:
        found = await Catalogue(session, caller).releases(paging)
    return answer(request, found, private=caller is not None)


@router.get(
    "/saes",
    summary="List SAEs",
    responses=with_304(
        responses(Page[SAEOut], examples.page(examples.SAE_OUT), BadCursor, ModelNotFound, ReleaseNotFound)
    ),
)
async def list_saes(  # noqa: PLR0917 (one parameter for each filter)
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    paging: ThePaging,
    model: Annotated[str | None, Query(description="Only of this model.")] = None,
    architecture: Annotated[Architecture | None, Query(description="Only of this architecture.")] = None,
    release: Annotated[str | None, Query(description="Only of this release.")] = None,
) -> Response:
    """SAEs, transcoders and identity dictionaries, by model, layer and id."""
    async with gateway.database.read() as session:
        found = await SAECatalogue(session, caller).list(SAEFilter(model, architecture, release), paging)
    return answer(request, found, private=caller is not None)


@router.get(
    "/models/{model}/saes/{sae}",
    summary="One SAE",
    responses=with_304(responses(SAEDetail, examples.SAE_DETAIL, ModelNotFound, SAENotFound)),
)
async def get_sae(
    request: Request, gateway: TheGateway, caller: AnyCaller, model: ModelPath, sae: SAEPath
) -> Response:
    """An SAE with its configuration, builds and their provenance, and its newest job."""
    async with gateway.database.read() as session:
        found = await SAECatalogue(session, caller).get(model, sae)
    return answer(request, found, private=caller is not None)


@router.get(
    "/corpora",
    summary="List corpora",
    responses=with_304(responses(Page[CorpusOut], examples.page(examples.CORPUS_OUT), BadCursor)),
)
async def list_corpora(
    request: Request, gateway: TheGateway, caller: AnyCaller, paging: ThePaging
) -> Response:
    """Tokenised text data sets, by id."""
    async with gateway.database.read() as session:
        found = await Catalogue(session, caller).corpora(paging)
    return answer(request, found, private=caller is not None)


@router.get(
    "/corpora/{corpus}",
    summary="One corpus",
    responses=with_304(responses(CorpusDetail, examples.CORPUS_DETAIL, CorpusNotFound)),
)
async def get_corpus(
    request: Request, gateway: TheGateway, caller: AnyCaller, corpus: CorpusPath
) -> Response:
    """A corpus with where its text comes from, by source and licence."""
    async with gateway.database.read() as session:
        found = await Catalogue(session, caller).corpus(corpus)
    return answer(request, found, private=caller is not None)
