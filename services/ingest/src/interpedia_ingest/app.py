"""The ingest API put together. It never imports torch: workers do the computing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from interpedia_ingest.build.sweep import Sweeper
from interpedia_ingest.corpora.endpoints import corpora_router
from interpedia_ingest.corpora.service import CorpusService
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.housekeeping import Housekeeping
from interpedia_ingest.models.endpoints import models_router
from interpedia_ingest.models.service import ModelService
from interpedia_ingest.saes.endpoints import saes_router
from interpedia_ingest.saes.service import SAEService
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads.endpoints import uploads_router
from interpedia_ingest.uploads.service import UploadService
from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.db.session import Database
from interpedia_shared.health import database_check
from interpedia_shared.settings import DatabaseSettings

DESCRIPTION = (
    "Takes in uploads, language models, corpora and SAEs, and orders the builds of their dashboards. "
    "What is long is a job, carried out by `python -m interpedia_ingest.worker`."
)


def create_app(settings: IngestSettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database and one data folder."""
    database = Database(database_settings)
    folder = DataFolder(settings)
    folder.prepare()
    uploads = UploadService(database, folder, settings)
    housekeeping = Housekeeping(database, uploads, Sweeper(database, folder, settings), settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        task = asyncio.create_task(housekeeping.run_for_ever())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.dispose()

    spec = ServiceSpec(
        name="ingest",
        title="Interpedia ingest",
        description=DESCRIPTION,
        routers=[
            uploads_router(uploads),
            saes_router(SAEService(database, folder, settings)),
            models_router(ModelService(database, settings.model_dirs)),
            corpora_router(CorpusService(database)),
        ],
        lifespan=lifespan,
        checks={
            "database": database_check(database),
            "data_folder": folder.check_writable,
            "free_space": folder.check_free_space,
        },
    )
    app = create_service(spec, settings)
    app.state.database = database
    return app
