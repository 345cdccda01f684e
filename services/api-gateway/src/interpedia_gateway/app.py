"""The gateway put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from interpedia_gateway.autointerp.endpoints import router as autointerp
from interpedia_gateway.catalogue.endpoints import router as catalogue
from interpedia_gateway.catalogue.lookup import Versions
from interpedia_gateway.explanations.endpoints import router as explanations
from interpedia_gateway.export.endpoints import MEDIA_TYPES
from interpedia_gateway.export.endpoints import router as export
from interpedia_gateway.features.endpoints import router as features
from interpedia_gateway.forwarding import client_of
from interpedia_gateway.jobs.endpoints import router as jobs
from interpedia_gateway.live.calls import client_of as hosts_client_of
from interpedia_gateway.live.endpoints import router as live
from interpedia_gateway.live.hosts import Hosts
from interpedia_gateway.live.search import router as prompt_search
from interpedia_gateway.live.shared import router as shared_runs
from interpedia_gateway.pages.docs import mount_assets
from interpedia_gateway.pages.docs import router as docs
from interpedia_gateway.pages.start import router as start
from interpedia_gateway.parameters import only_known_parameters
from interpedia_gateway.publishing.endpoints import router as publishing
from interpedia_gateway.search.endpoints import router as search
from interpedia_gateway.search.service import Search
from interpedia_gateway.search.vectors import TextVectors
from interpedia_gateway.settings import GatewaySettings
from interpedia_gateway.state import Gateway
from interpedia_gateway.vocabulary import Vocabularies
from interpedia_gateway.weights.endpoints import router as weights
from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.blobs import BlobStore
from interpedia_shared.db.session import Database
from interpedia_shared.embeddings import load_embedder, load_embedding_settings
from interpedia_shared.health import database_check
from interpedia_shared.settings import DatabaseSettings

DESCRIPTION = """\
Features of neural networks: browse them, read their dashboards with full provenance, export them, publish
your own; search and read what they are said to do, and how well that holds. Live: activations
of any text, steering, ablation, attribution, the logit lens.

Reads are open. Writes need a key, in `Authorization: Bearer <key>` or `x-api-key: <key>`; a wrong key is a
401 everywhere. Lists come in pages: pass `next_cursor` back as `cursor`. Every error is an RFC 9457 problem
whose `type` is a page. Answers carry an `ETag`.
"""
_V1 = (
    catalogue,
    features,
    explanations,
    search,
    autointerp,
    weights,
    export,
    live,
    prompt_search,
    shared_runs,
    jobs,
    publishing,
)
# Compressing these again only costs time, and ranges count bytes of the file itself.
_NOT_COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, MEDIA_TYPES["parquet"], "application/octet-stream")


def _gateway(settings: GatewaySettings, database: Database) -> Gateway:
    embedding_settings = load_embedding_settings()
    vectors = TextVectors(lambda: load_embedder(embedding_settings), settings.queries_kept)
    vocabularies = Vocabularies(settings.vocabularies_kept)
    return Gateway(
        settings=settings,
        database=database,
        blobs=BlobStore(settings.data_dir / "blobs"),
        vocabularies=vocabularies,
        versions=Versions(),
        ingest=client_of(settings.ingest_url, settings.ingest_timeout_s),
        autointerp=client_of(settings.autointerp_url, settings.autointerp_timeout_s),
        vectors=vectors,
        search=Search(database, vocabularies, vectors),
        hosts=Hosts(database, kept_s=settings.hosts_kept_s, silent_s=settings.host_silent_s),
        hosts_client=hosts_client_of(settings.max_live_requests),
        event_streams=asyncio.Semaphore(settings.max_event_streams),
        exports=asyncio.Semaphore(settings.max_exports),
    )


def _routers() -> list[APIRouter]:
    strict = APIRouter(dependencies=[Depends(only_known_parameters)])
    for router in _V1:
        strict.include_router(router)
    return [strict, start, docs]


def _add_middleware(app: FastAPI) -> None:
    app.add_middleware(
        GZipMiddleware, minimum_size=1000, compresslevel=5, exclude_content_types=_NOT_COMPRESSED
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=[
            "authorization",
            "x-api-key",
            "content-type",
            "idempotency-key",
            "if-none-match",
            "last-event-id",
            "range",
            "x-content-sha256",
            "x-request-id",
        ],
        expose_headers=[
            "etag",
            "link",
            "retry-after",
            "x-request-id",
            "content-disposition",
            "content-range",
        ],
        max_age=86_400,
    )


def create_app(settings: GatewaySettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database."""
    database = Database(database_settings)
    gateway = _gateway(settings, database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        yield
        await gateway.ingest.aclose()
        await gateway.autointerp.aclose()
        await gateway.vectors.aclose()
        await gateway.hosts_client.aclose()
        await database.dispose()

    spec = ServiceSpec(
        name="api-gateway",
        title="Interpedia",
        description=DESCRIPTION,
        routers=_routers(),
        lifespan=lifespan,
        checks={"database": database_check(database)},
    )
    app = create_service(spec, settings)
    mount_assets(app)
    _add_middleware(app)
    app.state.database = database
    app.state.gateway = gateway
    return app
