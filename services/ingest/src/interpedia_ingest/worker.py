"""`python -m interpedia_ingest.worker`: run the tasks of the queue `ingest`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from interpedia_engine.threads import configure_threads, keep_freed_memory
from interpedia_ingest.build.materials import Materials
from interpedia_ingest.build.plan import PUBLISH, REDUCE, SHARD
from interpedia_ingest.build.publish import PublishTask
from interpedia_ingest.build.reduce import ReduceTask
from interpedia_ingest.build.shard import ShardTask
from interpedia_ingest.corpora.service import KIND as TOKENIZE
from interpedia_ingest.corpora.task import TokenizeCorpus
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.models.service import KIND as REGISTER
from interpedia_ingest.models.task import RegisterModel
from interpedia_ingest.settings import IngestSettings, load_settings
from interpedia_ingest.shelf import Shelf
from interpedia_shared.jobs import Handler, Worker, WorkerTiming, run_until_signal
from interpedia_shared.logging import configure_logging
from interpedia_shared.settings import DatabaseSettings, load_database_settings

QUEUE = "ingest"


def make_handlers(settings: IngestSettings) -> Mapping[str, Handler]:
    """A handler for each kind of task, sharing what they keep loaded."""
    folder = DataFolder(settings)
    folder.prepare()
    shelf = Shelf(settings, folder)
    materials = Materials(shelf, folder)
    return {
        REGISTER: RegisterModel(shelf),
        TOKENIZE: TokenizeCorpus(shelf, folder),
        SHARD: ShardTask(materials),
        REDUCE: ReduceTask(materials),
        PUBLISH: PublishTask(materials, settings),
    }


def make_worker(settings: IngestSettings, database_settings: DatabaseSettings) -> Worker:
    """A worker that computes with as many threads as the settings say, one task at a time."""
    configure_threads(settings.torch_threads)
    timing = WorkerTiming(heartbeat_timeout_s=settings.heartbeat_timeout_s)
    return Worker(database_settings, make_handlers(settings), queue=QUEUE, timing=timing)


def main() -> None:
    """Read the settings and work until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    keep_freed_memory()
    asyncio.run(run_until_signal(make_worker(settings, load_database_settings())))


if __name__ == "__main__":
    main()
