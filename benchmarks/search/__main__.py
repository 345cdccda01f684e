"""`python -m benchmarks.search`: load the data once, measure, write `results/search.json` and the README."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.processes import exclusive
from benchmarks.search import asking
from benchmarks.search.asking import Filters, Pace
from benchmarks.search.loading import Loaded, Size, kept_server, load, read_facts
from benchmarks.search.table import section
from benchmarks.search.texts import material, queries, topics
from benchmarks.services import Service, service
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.embeddings.minilm import MiniLM

LOG = logging.getLogger("bench.search")
NOWHERE: list[Filters] = [{}]
CALLERS = asking.CALLERS
WARM_UP = 320
"""Each connection plans each kind of statement once; a server that has run for a while has done so."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=report.ROOT / "var" / "bench",
        help="some 2 GB, kept for the next run",
    )
    parser.add_argument(
        "--saes", type=int, default=Size().n_saes, help="of 24,576 features; 12 are published"
    )
    parser.add_argument("--queries", type=int, default=400, help="for each row of the table")
    parser.add_argument(
        "--compared", type=int, default=80, help="queries whose answers are compared to exact"
    )
    parser.add_argument("--no-publish", action="store_true", help="only log the table")
    return parser.parse_args()


def measure(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """All numbers."""
    embedder = MiniLM.load()
    result: dict[str, Any] = {
        "machine": report.machine("asyncpg", "sqlalchemy", "fastapi", "numpy"),
        "size": {**asdict(size), "n_explanations": size.n_explanations},
    }
    work: Path = options.work_dir.absolute()
    with kept_server(work / "search-data", size) as (postgres, facts, is_loaded):
        loaded: Loaded = read_facts(facts) if is_loaded else load(postgres, facts, size, material(embedder))
        result |= {"loaded": asdict(loaded), "reused": is_loaded, "load_before": os.getloadavg()[0]}
        url = postgres.create_database("search")
        with service("gateway", url=url, work=work, environment={}) as running:
            result |= _ask(options, running, postgres)
            result["recall"] = _recall(options.compared, running, url, embedder)
    result["load_after"] = os.getloadavg()[0]
    return result


def _ask(options: argparse.Namespace, running: Service, postgres: LocalPostgres) -> dict[str, Any]:
    """Every row of the table; no query comes twice, but in the rows that say so."""
    count: int = options.queries
    stock = iter(queries(topics(), 5 * count + 2 * WARM_UP, seed=1))

    def fresh(number: int) -> list[str]:
        return [next(stock) for _ in range(number)]

    def row(asked: Sequence[str], pace: Pace) -> dict[str, Any]:
        gateway, server = running.cpu_s(), asking.backends_cpu_s(postgres.pid or 0)
        found = asking.ask(running.base, asked, pace)
        found["gateway_cpu_s"] = (running.cpu_s() - gateway) / len(asked)
        found["server_cpu_s"] = (asking.backends_cpu_s(postgres.pid or 0) - server) / len(asked)
        found["load"] = os.getloadavg()[0]
        LOG.info("%s", json.dumps(found))
        return found

    some, paced = asking.filters(), Pace(pause_s=asking.PAUSE_S)
    for narrowed in (NOWHERE, some):
        asking.ask(running.base, asking.paths(fresh(WARM_UP), narrowed, "hybrid"), Pace())
    again = fresh(count)
    rows = {
        "hybrid": row(asking.paths(again, NOWHERE, "hybrid"), paced),
        "filtered": row(asking.paths(fresh(count), some, "hybrid"), paced),
        "remembered": row(asking.paths(again, NOWHERE, "hybrid"), paced),
        "keyword": row(asking.paths(fresh(count), NOWHERE, "keyword"), paced),
        "one": row(asking.paths(fresh(count), NOWHERE, "hybrid"), Pace(callers=1)),
        "remembered_closed": row(asking.paths(again, NOWHERE, "hybrid"), Pace()),
        "filtered_closed": row(asking.paths(fresh(count), some, "hybrid"), Pace()),
    }
    return {"rows": rows}


def _recall(compared: int, running: Service, url: str, embedder: MiniLM) -> dict[str, float]:
    asked = queries(topics(), compared, seed=2)

    def nearest(vector: np.ndarray, narrowed: Filters) -> list[tuple[str, int]]:
        return asyncio.run(asking.exact(url, vector, narrowed))

    return {
        name: asking.recall(running.base, embedder, asked, nearest, narrowed)
        for name, narrowed in (("everywhere", NOWHERE), ("filtered", asking.filters()))
    }


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options = arguments()
    size = Size(n_saes=options.saes)
    with exclusive(options.work_dir / "search-lock"):
        result = measure(options, size)
    if options.no_publish or size != Size():
        LOG.info("not published:\n%s", section(result))
        return
    path = report.publish("search", result, section(result))
    LOG.info("written: %s and the README", path.name)


if __name__ == "__main__":
    main()
