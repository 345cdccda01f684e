"""Links to shared steering runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from interpedia_gateway.answers import answer
from interpedia_gateway.documentation import problems_only, responses, with_304
from interpedia_gateway.live import examples
from interpedia_gateway.live.schemas import SharedSteering
from interpedia_gateway.live.sharing import forget_shared, read_shared
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import KeyCaller
from interpedia_shared.problems import Forbidden, NotFound

router = APIRouter(prefix="/v1/steer/shared", tags=["live"])
RunPath = Annotated[
    str, Path(description="Id of the run, from its link.", examples=["q3Xk0m9cQ0yJ2v6r1s8T4w"])
]


@router.get(
    "/{run}",
    summary="A shared steering run",
    responses=with_304(responses(SharedSteering, examples.SHARED, NotFound)),
)
async def get_shared(request: Request, gateway: TheGateway, run: RunPath) -> Response:
    """Request and answer of a run that was shared. Whoever has the link can read it."""
    return answer(request, await read_shared(gateway.database, run))


@router.delete(
    "/{run}",
    status_code=204,
    summary="Take a shared run back",
    response_class=Response,
    responses={204: {"description": "It is gone."}, **problems_only(Forbidden, NotFound)},
)
async def delete_shared(gateway: TheGateway, caller: KeyCaller, run: RunPath) -> Response:
    """Delete a shared run; for the account that shared it."""
    await forget_shared(gateway.database, caller, run)
    return Response(status_code=204)
