"""`python -m benchmarks.autointerp`: measure, write `results/autointerp.json` and the README's tables."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.autointerp import comparing, puzzling, throughput
from benchmarks.autointerp.table import section
from benchmarks.autointerp.tasks import FROZEN, read_tasks
from benchmarks.database import migrated, server
from benchmarks.processes import exclusive
from interpedia_autointerp.llm import load_llm_settings

LOG = logging.getLogger("bench.autointerp")
CALLS, QUICK_CALLS = 6_400, 640
LLM_FEATURES = 20


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autointerp")
    parser.add_argument("--work-dir", type=Path, default=report.ROOT / "var" / "bench", help="emptied after")
    parser.add_argument("--tasks", type=Path, default=FROZEN, help="frozen material")
    parser.add_argument("--llm-features", type=int, default=LLM_FEATURES, help="so many are for an LLM")
    parser.add_argument("--quick", action="store_true", help="fewer calls; nothing is published")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All parts."""
    tasks = read_tasks(options.tasks)
    work: Path = options.work_dir.absolute()
    settings = load_llm_settings()
    result: dict[str, Any] = {"machine": report.machine("numpy", "httpx", "sqlalchemy"), "llm": None}
    with server(work / "postgres-autointerp") as postgres:
        url = migrated(postgres, "calls")
        LOG.info("calls in flight")
        calls = QUICK_CALLS if options.quick else CALLS
        result["in_flight"] = throughput.measure(url, work, calls=calls)
        LOG.info("puzzles")
        result["puzzles"] = puzzling.measure(migrated(postgres, "puzzles"), work)
        if settings.llm is not None:
            LOG.info("explainers with the LLM at %s", settings.llm.base_url)
            few = tasks[: options.llm_features]
            result["llm"] = comparing.with_llm(few, migrated(postgres, "llm"), settings)
    LOG.info("explainers without an LLM")
    result["rules"] = comparing.by_rules(tasks)
    result["cost"] = comparing.cost(tasks)
    return result


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    options = arguments()
    with exclusive(options.work_dir):
        result = run(options)
    LOG.info("measured:\n%s", section(result))
    if options.quick:
        return
    path = report.publish("autointerp", result, section(result))
    LOG.info("written: %s and the README", path.name)


if __name__ == "__main__":
    main()
