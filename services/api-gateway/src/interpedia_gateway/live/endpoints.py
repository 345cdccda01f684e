"""Live routes: checked and documented here, computed by a host that holds the model."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from interpedia_gateway.documentation import Responses, responses
from interpedia_gateway.live import examples
from interpedia_gateway.live.joins import join_explanations, join_numbers
from interpedia_gateway.live.listing import served_models
from interpedia_gateway.live.schemas import ServedModel
from interpedia_gateway.live.service import TheLive
from interpedia_gateway.live.sharing import Sharing, check_shareable
from interpedia_gateway.parameters import OnceKey
from interpedia_gateway.state import BaseURL, TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.contracts.live.activations import (
    ActivationsOut,
    ActivationsRequest,
    LensOut,
    LensRequest,
    TopOut,
    TopRequest,
)
from interpedia_shared.contracts.live.effects import AblateOut, AblateRequest, AttributeOut, AttributeRequest
from interpedia_shared.contracts.live.requests import TokenizeOut, TokenizeRequest
from interpedia_shared.contracts.live.steering import SteerOut, SteerRequest
from interpedia_shared.idempotency import Once
from interpedia_shared.problems import (
    Busy,
    DeadlineExceeded,
    FeatureNotFound,
    HostNotReady,
    IdempotencyMismatch,
    ModelNotFound,
    Problem,
    SAENotFound,
    TooLarge,
    TooLong,
)
from interpedia_shared.schemas import Page

router = APIRouter(prefix="/v1", tags=["live"])
_MODEL: tuple[type[Problem], ...] = (ModelNotFound, TooLong, TooLarge, Busy, DeadlineExceeded, HostNotReady)
_FEATURES: tuple[type[Problem], ...] = (SAENotFound, FeatureNotFound)


def _answers(model: type[BaseModel], example: Any, *problems: type[Problem]) -> Responses:
    return responses(model, example, *_MODEL, *problems)


@router.get(
    "/live",
    summary="Models that are served live",
    responses=responses(Page[ServedModel], {"items": [examples.SERVED], "next_cursor": None}),
)
async def list_served(gateway: TheGateway) -> Page[ServedModel]:
    """Models with inference hosts, whether they are ready, and what one request may ask for."""
    return Page(items=served_models(await gateway.hosts.known()))


@router.post(
    "/tokenize",
    summary="Tokens of a text or chat",
    response_class=Response,
    responses=_answers(TokenizeOut, examples.TOKENIZE),
)
async def tokenize(live: TheLive, body: TokenizeRequest) -> Response:
    """The tokens as the model sees them; positions everywhere else count in these."""
    return await live.relay(body)


@router.post(
    "/activations",
    summary="Activations of features on texts",
    response_class=Response,
    responses=_answers(ActivationsOut, examples.ACTIVATIONS, *_FEATURES),
)
async def activations(live: TheLive, body: ActivationsRequest) -> Response:
    """What given features, whole SAEs (sparse) or directions do at each token of up to 64 texts."""
    return await live.relay(body)


@router.post(
    "/activations/top",
    summary="Top features of a text",
    response_class=Response,
    responses=_answers(TopOut, examples.TOP, *_FEATURES),
)
async def top(live: TheLive, body: TopRequest) -> Response:
    """The features that a text activates most, over one or many SAEs: by maximum, at positions, per token.

    Density filters act before the top is taken. Explanation and stored numbers are given with each feature.
    """
    return await live.joined(body, join_numbers)


@router.post(
    "/steer",
    summary="Generate with interventions",
    response_class=Response,
    responses={
        **_answers(SteerOut, examples.STEER, *_FEATURES, IdempotencyMismatch),
        200: {
            "description": "Default and steered; a stream of events with `stream`.",
            "model": SteerOut,
            "content": {
                "application/json": {"example": examples.STEER},
                "text/event-stream": {"example": examples.STEER_EVENTS},
            },
        },
    },
)
async def steer(
    live: TheLive,
    gateway: TheGateway,
    caller: AnyCaller,
    base: BaseURL,
    body: SteerRequest,
    once: OnceKey = None,
) -> Response:
    """Default and steered continuation from the same seed, side by side.

    With `stream`, server-sent events: `start`, then a `token` for each token of each output, at the end
    `done` with the whole answer, or `error` with a problem. Hanging up stops the generation. Nothing is kept
    unless `share` asks for a link, which needs a key.
    """
    sharer = check_shareable(body, caller)
    keep = None
    if sharer is not None:
        claim = Once(sharer, "POST /v1/steer", once, body)
        keep = partial(Sharing(gateway.database, sharer, base, claim).keep, body)
    return await live.steer(body, keep)


@router.post(
    "/ablate",
    summary="Take features out",
    response_class=Response,
    responses=_answers(AblateOut, examples.ABLATE, *_FEATURES),
)
async def ablate(live: TheLive, body: AblateRequest) -> Response:
    """What the model predicts without a set of features: loss and KL per token, and what rose and fell."""
    return await live.relay(body)


@router.post(
    "/attribute",
    summary="Features behind a prediction",
    response_class=Response,
    responses=_answers(AttributeOut, examples.ATTRIBUTE, *_FEATURES),
)
async def attribute(live: TheLive, body: AttributeRequest) -> Response:
    """Features ranked by their part in a logit or logit difference; the top ones are ablated for real."""
    return await live.joined(body, join_explanations)


@router.post(
    "/lens",
    summary="Logit lens",
    response_class=Response,
    responses=_answers(LensOut, examples.LENS),
)
async def lens(live: TheLive, body: LensRequest) -> Response:
    """What each layer's stream would predict at each token."""
    return await live.relay(body)
