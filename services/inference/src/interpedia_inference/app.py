"""The inference service put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import structlog
from fastapi import APIRouter, FastAPI
from starlette.routing import Route

from interpedia_inference.ablation.endpoints import ablation_router
from interpedia_inference.activations.endpoints import activations_router
from interpedia_inference.admission import Admission
from interpedia_inference.attribution.endpoints import attribution_router
from interpedia_inference.compute.compute import Compute
from interpedia_inference.hosts.describe import Description
from interpedia_inference.hosts.endpoints import capabilities_router
from interpedia_inference.hosts.heartbeat import Heartbeat
from interpedia_inference.lens.endpoints import lens_router
from interpedia_inference.lifetime import Lifetime
from interpedia_inference.prompt_search.endpoints import prompt_search_router
from interpedia_inference.prompt_search.job import PromptSearch
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.model import ModelHost
from interpedia_inference.shelf.saes import SAEShelf
from interpedia_inference.steering.endpoints import steering_router
from interpedia_inference.stored import StoredNumbers
from interpedia_inference.tokenize.endpoints import tokenize_router
from interpedia_inference.top.endpoints import top_router
from interpedia_inference.visits.reception import Reception
from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.db.session import Database
from interpedia_shared.health import database_check
from interpedia_shared.jobs import Handler
from interpedia_shared.settings import DatabaseSettings

log = structlog.get_logger(__name__)

DESCRIPTION = (
    "One language model and its SAEs in memory: activations, top features, steering, ablation, attribution, "
    "prompt search, the logit lens. The gateway checks who may see what; this service is not for the public."
)


def create_app(settings: InferenceSettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database, one model and one data folder."""
    database = Database(database_settings)
    admission = Admission(settings)
    compute = Compute(settings)
    host = ModelHost(database, settings, compute.start)
    shelf = SAEShelf(database, settings)
    reception = Reception(
        host,
        admission,
        compute=compute,
        shelf=shelf,
        stored=StoredNumbers(database),
        settings=settings,
    )
    routers = _live_routers(reception)
    description = Description(host, admission, shelf, settings=settings, routes=_paths(routers))
    lifetime = Lifetime(
        reception,
        Heartbeat(database, settings, description.now),
        handlers=_handlers(reception),
        database_settings=database_settings,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        running = asyncio.create_task(lifetime.run())
        running.add_done_callback(_log_end)
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await lifetime.end()
        await database.dispose()

    spec = ServiceSpec(
        name="inference",
        title="Interpedia inference",
        description=DESCRIPTION,
        routers=[capabilities_router(description.now), *routers],
        lifespan=lifespan,
        checks={"database": database_check(database), "model": host.check},
    )
    app = create_service(spec, settings)
    app.state.database = database
    app.state.reception = reception
    return app


def _log_end(running: asyncio.Task[None]) -> None:
    """What runs beside the routes ends by being cancelled; anything else must not go unseen."""
    if not running.cancelled() and (error := running.exception()) is not None:
        log.critical("lifetime_ended", exc_info=error)


def _live_routers(reception: Reception) -> list[APIRouter]:
    """Everything that is asked of the model."""
    return [
        tokenize_router(reception),
        activations_router(reception),
        top_router(reception),
        lens_router(reception),
        steering_router(reception),
        ablation_router(reception),
        attribution_router(reception),
        prompt_search_router(reception),
    ]


def _handlers(reception: Reception) -> Mapping[str, Handler]:
    """Jobs that need the model, by kind of task; taken from the queue `inference-<model>`."""
    return {"prompt_search": PromptSearch(reception)}


def _paths(routers: list[APIRouter]) -> list[str]:
    return sorted({route.path for router in routers for route in router.routes if isinstance(route, Route)})
