"""A service that has nothing of its own yet: healthy, and it says that it takes no work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from pydantic import Field

from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.db.session import Database
from interpedia_shared.health import database_check
from interpedia_shared.schemas import Schema
from interpedia_shared.settings import DatabaseSettings, ServiceSettings


class Capabilities(Schema):
    """What this service can do at the moment."""

    routes: list[str] = Field(description="Work this service takes; empty while it takes none.")


def capabilities_router() -> APIRouter:
    """The one route that such a service has."""
    router = APIRouter(prefix="/v1", tags=["capabilities"])

    @router.get("/capabilities")
    async def capabilities() -> Capabilities:
        """List the work this service takes: none yet."""
        return Capabilities(routes=[])

    return router


def create_shell(
    name: str, *, description: str, settings: ServiceSettings, database_settings: DatabaseSettings
) -> FastAPI:
    """Build the service around one database."""
    database = Database(database_settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        yield
        await database.dispose()

    spec = ServiceSpec(
        name=name,
        title=f"Interpedia {name}",
        description=description,
        routers=[capabilities_router()],
        lifespan=lifespan,
        checks={"database": database_check(database)},
    )
    app = create_service(spec, settings)
    app.state.database = database
    return app
