"""Explanations: read them with their evidence, write one's own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from interpedia_gateway.answers import answer
from interpedia_gateway.catalogue.lookup import MAX_ID
from interpedia_gateway.documentation import problems_only, responses, with_304
from interpedia_gateway.examples import page
from interpedia_gateway.explanations import examples
from interpedia_gateway.explanations.schemas import (
    ExplanationDetail,
    ExplanationEdit,
    ExplanationOut,
    ExplanationRequest,
)
from interpedia_gateway.explanations.service import Explanations
from interpedia_gateway.keysets import ThePaging
from interpedia_gateway.parameters import IndexPath, ModelPath, OnceKey, SAEPath
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import AnyCaller, KeyCaller
from interpedia_shared.idempotency import Once
from interpedia_shared.problems import (
    BadCursor,
    Conflict,
    ExplanationNotFound,
    FeatureNotFound,
    Forbidden,
    IdempotencyMismatch,
    ModelNotFound,
    SAENotFound,
)
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["explanations"])
_FEATURE = (ModelNotFound, SAENotFound, FeatureNotFound)
ExplanationPath = Annotated[int, Path(ge=1, le=MAX_ID, description="Id of the explanation.", examples=[17])]
FeaturePath = tuple[str, str, int]


async def feature_of(model: ModelPath, sae: SAEPath, index: IndexPath) -> FeaturePath:
    """The feature of a path (a dependency)."""
    return model, sae, index


async def explanations_of(gateway: TheGateway) -> Explanations:
    """The explanations (a dependency)."""
    return Explanations(gateway.database, gateway.vectors)


TheFeature = Annotated[FeaturePath, Depends(feature_of)]
TheExplanations = Annotated[Explanations, Depends(explanations_of)]


@router.get(
    "/models/{model}/saes/{sae}/features/{index}/explanations",
    summary="A feature's explanations",
    responses=with_304(responses(Page[ExplanationOut], page(examples.EXPLANATION), *_FEATURE, BadCursor)),
)
async def list_explanations(
    request: Request, explanations: TheExplanations, caller: AnyCaller, feature: TheFeature, paging: ThePaging
) -> Response:
    """What people and machines say the feature does: the default first, the others newest first."""
    found, place = await explanations.list(feature, caller, paging)
    return answer(request, found, private=place.is_private)


@router.post(
    "/models/{model}/saes/{sae}/features/{index}/explanations",
    status_code=201,
    summary="Explain a feature yourself",
    response_class=Response,
    responses=responses(
        ExplanationOut,
        {**examples.EXPLANATION, "scores": [], "best_score": None},
        *_FEATURE,
        Conflict,
        IdempotencyMismatch,
        status=201,
    ),
)
async def add_explanation(
    explanations: TheExplanations,
    caller: KeyCaller,
    feature: TheFeature,
    body: ExplanationRequest,
    once: OnceKey = None,
) -> Response:
    """Add an explanation of one's own; its author is the key's account. There may be several.

    It is shown with the feature until a scored one proves better; `POST /v1/score` scores it like any other.
    """
    model, sae, index = feature
    route = f"POST /v1/models/{model}/saes/{sae}/features/{index}/explanations"
    added = await explanations.add(feature, caller, body, Once(caller, route, once, body))
    return added.response()


@router.get(
    "/explanations/{explanation}",
    summary="One explanation",
    responses=with_304(responses(ExplanationDetail, examples.DETAIL, ExplanationNotFound)),
)
async def get_explanation(
    request: Request, explanations: TheExplanations, caller: AnyCaller, explanation: ExplanationPath
) -> Response:
    """An explanation with all its scores and the verdicts they were made of."""
    found, is_private = await explanations.detail(explanation, caller)
    return answer(request, found, private=is_private)


@router.patch(
    "/explanations/{explanation}",
    summary="Change your explanation",
    responses=responses(ExplanationOut, examples.EXPLANATION, ExplanationNotFound, Forbidden, Conflict),
)
async def edit_explanation(
    request: Request,
    explanations: TheExplanations,
    caller: KeyCaller,
    explanation: ExplanationPath,
    body: ExplanationEdit,
) -> Response:
    """Change text or role of one's own explanation. A text that was scored stays: add another one."""
    return answer(request, await explanations.edit(explanation, caller, body), private=True)


@router.delete(
    "/explanations/{explanation}",
    status_code=204,
    summary="Delete your explanation",
    response_class=Response,
    responses={204: {"description": "It is gone."}, **problems_only(ExplanationNotFound, Forbidden)},
)
async def delete_explanation(
    explanations: TheExplanations, caller: KeyCaller, explanation: ExplanationPath
) -> Response:
    """Delete one's own explanation with its scores; the feature's default is chosen anew."""
    await explanations.remove(explanation, caller)
    return Response(status_code=204)
