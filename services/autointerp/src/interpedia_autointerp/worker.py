"""`python -m interpedia_autointerp.worker`: run the tasks of the queue `autointerp`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from interpedia_autointerp.benchmarks.task import BenchmarkReportTask, BenchmarkTask
from interpedia_autointerp.embed import EmbedExplanations
from interpedia_autointerp.encoder import installed_encoder
from interpedia_autointerp.explain.task import ExplainTask
from interpedia_autointerp.llm import LLMSettings, load_llm_settings
from interpedia_autointerp.orders.making import QUEUE
from interpedia_autointerp.redteam.task import RedTeamTask
from interpedia_autointerp.score.task import ScoreTask
from interpedia_autointerp.settings import AutointerpSettings, load_settings
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import Handler, Worker, WorkerTiming, run_until_signal
from interpedia_shared.logging import configure_logging
from interpedia_shared.settings import DatabaseSettings, load_database_settings


def make_handlers(workshop: Workshop) -> Mapping[str, Handler]:
    """A handler for each kind of task."""
    return {
        "explain": ExplainTask(workshop),
        "score": ScoreTask(workshop),
        "redteam": RedTeamTask(workshop),
        "benchmark": BenchmarkTask(workshop),
        "benchmark_report": BenchmarkReportTask(),
        "embed": EmbedExplanations(),
    }


async def run(settings: AutointerpSettings, database_settings: DatabaseSettings, llm: LLMSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    database = Database(database_settings)
    workshop = Workshop.open(settings, database, llm, installed_encoder())
    worker = Worker(
        database_settings,
        make_handlers(workshop),
        queue=QUEUE,
        concurrency=settings.worker_tasks,
        timing=WorkerTiming(heartbeat_timeout_s=settings.heartbeat_timeout_s),
    )
    try:
        await run_until_signal(worker)
    finally:
        await workshop.aclose()
        await database.dispose()


def main() -> None:
    """Read the settings and work."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    asyncio.run(run(settings, load_database_settings(), load_llm_settings()))


if __name__ == "__main__":
    main()
