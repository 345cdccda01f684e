"""`GET /v1/capabilities`."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from interpedia_shared.contracts.live.capabilities import Capabilities


def capabilities_router(describe: Callable[[], Capabilities]) -> APIRouter:
    """The route that says what this host holds and takes."""
    router = APIRouter(prefix="/v1", tags=["host"])

    @router.get("/capabilities", summary="What this host holds and takes")
    async def capabilities() -> Capabilities:
        """The model and its state, limits, SAEs that are loaded, requests waiting or running."""
        return describe()

    return router
