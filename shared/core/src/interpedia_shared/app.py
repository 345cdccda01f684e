"""Build a service: middleware, problems, health, OpenAPI, all the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import uvicorn
from fastapi import APIRouter, FastAPI

from interpedia_shared import __version__
from interpedia_shared.health import Check, health_router
from interpedia_shared.logging import configure_logging
from interpedia_shared.middleware import BodyLimit, RequestContext
from interpedia_shared.problem_handlers import install_handlers
from interpedia_shared.schemas import ProblemBody
from interpedia_shared.settings import ServiceSettings

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What distinguishes one service from another."""

    name: str
    title: str
    description: str
    routers: Sequence[APIRouter]
    lifespan: Lifespan
    checks: Mapping[str, Check] = field(default_factory=dict)


def create_service(spec: ServiceSpec, settings: ServiceSettings) -> FastAPI:
    """Put one service together. Middleware runs outside in: context, body limit, problems."""
    app = FastAPI(
        title=spec.title,
        description=spec.description,
        version=__version__,
        lifespan=spec.lifespan,
        # FastAPI's own pages load scripts from another host; the gateway serves them itself.
        docs_url=None,
        redoc_url=None,
    )
    install_handlers(app, settings.docs_url)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, docs_url=settings.docs_url)
    app.add_middleware(RequestContext, service=spec.name)
    app.include_router(health_router(spec.name, __version__, spec.checks))
    for router in spec.routers:
        app.include_router(router)
    _declare_problem_body(app)
    return app


def _declare_problem_body(app: FastAPI) -> None:
    original = app.openapi

    def openapi() -> dict[str, object]:
        schema = original()
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(body.pop("$defs", {}))
        components["ProblemBody"] = body
        return schema

    app.openapi = openapi


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Run a service until it is told to stop."""
    configure_logging(settings.log_level, settings.log_format)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
    )
