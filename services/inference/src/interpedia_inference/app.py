"""The inference service put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from pydantic import Field

from interpedia_inference.settings import InferenceSettings
from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.db.session import Database
from interpedia_shared.health import database_check
from interpedia_shared.schemas import Schema
from interpedia_shared.settings import DatabaseSettings

DESCRIPTION = (
    "One language model and its SAEs in memory. Live routes arrive with the next release; "
    "until then this service is healthy and says that it can do nothing yet."
)


class Capabilities(Schema):
    """What this service can do at the moment."""

    routes: list[str] = Field(description="Work this service takes; empty while it takes none.")


def capabilities_router() -> APIRouter:
    """The one route of its own that this service has so far."""
    router = APIRouter(prefix="/v1", tags=["capabilities"])

    @router.get("/capabilities")
    async def capabilities() -> Capabilities:
        """List the work this service takes: none yet."""
        return Capabilities(routes=[])

    return router


def create_app(settings: InferenceSettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database."""
    database = Database(database_settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        await database.dispose()

    spec = ServiceSpec(
        name="inference",
        title="Interpedia inference",
        description=DESCRIPTION,
        routers=[capabilities_router()],
        lifespan=lifespan,
        checks={"database": database_check(database)},
    )
    app = create_service(spec, settings)
    app.state.database = database
    return app
