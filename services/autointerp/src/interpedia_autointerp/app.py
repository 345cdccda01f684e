"""The autointerp API put together. Workers do the explaining; nothing here imports torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from interpedia_autointerp.benchmarks.endpoints import benchmarks_router
from interpedia_autointerp.benchmarks.service import BenchmarkService
from interpedia_autointerp.encoder import LazyEncoder
from interpedia_autointerp.explain.endpoints import explain_router
from interpedia_autointerp.explain.service import ExplainService
from interpedia_autointerp.llm import LLMSettings
from interpedia_autointerp.methods.endpoints import methods_router
from interpedia_autointerp.redteam.endpoints import redteam_router
from interpedia_autointerp.redteam.service import RedTeamService
from interpedia_autointerp.runs.endpoints import runs_router
from interpedia_autointerp.score.endpoints import score_router
from interpedia_autointerp.score.service import ScoreService
from interpedia_autointerp.settings import AutointerpSettings
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.app import ServiceSpec, create_service
from interpedia_shared.db.session import Database
from interpedia_shared.health import database_check
from interpedia_shared.settings import DatabaseSettings

DESCRIPTION = (
    "Explains features, scores explanations, tries to refute hypotheses and compares explainers. All of it is"
    " jobs, carried out by `python -m interpedia_autointerp.worker`."
)


def create_app(
    settings: AutointerpSettings, database_settings: DatabaseSettings, llm: LLMSettings
) -> FastAPI:
    """Build the service around one database and the LLM endpoints of the settings."""
    database = Database(database_settings)
    workshop = Workshop.open(settings, database, llm, LazyEncoder())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        yield
        await workshop.aclose()
        await database.dispose()

    spec = ServiceSpec(
        name="autointerp",
        title="Interpedia autointerp",
        description=DESCRIPTION,
        routers=[
            explain_router(ExplainService(workshop)),
            score_router(ScoreService(workshop)),
            redteam_router(RedTeamService(workshop)),
            benchmarks_router(BenchmarkService(workshop)),
            methods_router(workshop.caller),
            runs_router(database),
        ],
        lifespan=lifespan,
        checks={"database": database_check(database)},
    )
    app = create_service(spec, settings)
    app.state.database = database
    return app
