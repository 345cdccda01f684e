"""Parameters that many routes take."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path, Query, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.requests import Request
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from interpedia_gateway.catalogue.lookup import MAX_ID
from interpedia_shared.ids import plain_index
from interpedia_shared.problems import Invalid


def _plain_integer(value: Any) -> int:
    """Only digits and a sign: `1_0`, `1.0` and the like name no feature."""
    if not isinstance(value, str):
        raise ValueError("a feature index is a whole number")
    size = plain_index(value.removeprefix("-"))
    return -size if value.startswith("-") else size


ModelPath = Annotated[str, Path(description="Id of the model.", examples=["smollm2-135m-instruct"])]
SAEPath = Annotated[str, Path(description="Id of the SAE within the model.", examples=["15-res-3k"])]
CorpusPath = Annotated[str, Path(description="Id of the corpus.", examples=["demo"])]
IndexPath = Annotated[
    int,
    BeforeValidator(_plain_integer),
    Path(description="Index of the feature, from 0.", examples=[650]),
]
VersionQuery = Annotated[
    int | None,
    Query(ge=1, le=MAX_ID, description="A published build; the current one if absent.", examples=[12]),
]
OnceKey = Annotated[
    str | None,
    Header(
        alias="idempotency-key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="The same key with the same body gets the same answer and has no second effect.",
    ),
]


async def only_known_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have: a typo must not silently change the answer.

    Raises:
        Invalid: names the first unknown parameter and those there are.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = {
        field.alias
        for field in get_flat_params(route.dependant)
        if isinstance(field.field_info, params.Query)
    }
    for name in request.query_params:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise Invalid.field(name[:100], f"no such query parameter; there are: {there}")
