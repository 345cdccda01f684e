"""`python -m benchmarks.autointerp.freeze`: material of a running demo, into the file that is measured on.

Needed once, and again when material is made in another way. With `--verify` further near misses are looked
for and checked on the live model; without it they are silent windows that the dashboards have stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging

import asyncpg

from benchmarks.autointerp.tasks import FROZEN, write_tasks
from interpedia import Client
from interpedia.settings import Settings
from interpedia_autointerp.material import Task

LOG = logging.getLogger("bench.autointerp")


def main() -> None:
    """Have tasks made and stored by a benchmark of rules; then read them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autointerp.freeze")
    parser.add_argument("--url", default=Settings().url, help="the gateway")
    parser.add_argument("--database-url", required=True, help="its database, to read the tasks from")
    parser.add_argument("--sae", default="smollm2-135m-instruct/15-res-3k")
    parser.add_argument("--features", type=int, default=60)
    parser.add_argument("--verify", action="store_true", help="look for near misses on the live model")
    options = parser.parse_args()
    with Client(options.url, Settings.from_environment().api_key) as client:
        work = client.autointerp.benchmark(
            ["ngrams"],
            ["rule"],
            saes=[options.sae],
            sample=options.features,
            min_density=0.0005,
            max_density=0.02,
            verify=options.verify,
        )
        assert work.job is not None
        job = client.jobs.wait(work.job.id)
    entries = (job.result or {})["report"]
    LOG.info("%s features compared", entries["features"])
    tasks = asyncio.run(_read(options.database_url, work.job.id))
    write_tasks(tasks)
    LOG.info("%s tasks, %s kB", len(tasks), FROZEN.stat().st_size // 1000)


async def _read(url: str, job_id: str) -> list[Task]:
    """The tasks that the job's entries name by hash."""
    connection = await asyncpg.connect(url)
    try:
        parts = await connection.fetch(
            "SELECT data FROM job_event WHERE job_id = $1 AND type = 'part' AND data ? 'results'", job_id
        )
        hashes = {entry["split_hash"] for part in parts for entry in json.loads(part["data"])["results"]}
        rows = await connection.fetch(
            "SELECT material FROM explanation_task WHERE split_hash = ANY($1::text[])", sorted(hashes)
        )
    finally:
        await connection.close()
    return [Task.from_json(json.loads(row["material"])) for row in rows]


if __name__ == "__main__":
    main()
