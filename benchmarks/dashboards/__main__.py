"""`python -m benchmarks.dashboards`: measure, write `results/dashboards.json` and the README's table."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.dashboards.inputs import K, prepare, threshold_for, write_jumprelu
from benchmarks.dashboards.runs import Bench, Size, keep_activations, measure
from benchmarks.dashboards.table import section
from benchmarks.database import server
from benchmarks.peers.environment import peer_python
from benchmarks.processes import exclusive, run_module

LOG = logging.getLogger("bench.dashboards")
SMALL, LARGE = 256, 4096
CAPTURE_PROCESSES = 2
THRESHOLD_GROUPS = 8
FORWARD_PAIRS = 12


def sizes(*, quick: bool) -> list[Size]:
    """What is compared. The peer is timed on a part of its batches where all would take hours."""
    if quick:
        return [
            Size(64, "jumprelu", 1, stored_activations=False),
            Size(64, "topk", 1, stored_activations=True),
        ]
    return [
        Size(SMALL, "jumprelu", None, stored_activations=False),
        Size(SMALL, "topk", 2, stored_activations=True),
        Size(LARGE, "jumprelu", 2, stored_activations=True),
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboards")
    parser.add_argument(
        "--work-dir", type=Path, default=report.ROOT / "var" / "bench", help="kept between runs"
    )
    parser.add_argument("--corpus", type=Path, default=report.ROOT / "examples" / "demo_corpus.jsonl.xz")
    parser.add_argument("--sae", type=Path, default=report.ROOT / "examples" / "saes" / "15-res-3k")
    parser.add_argument("--random-sae", action="store_true", help="a random SAE, to try the command out")
    parser.add_argument(
        "--skip-peer", action="store_true", help="measure only our side; nothing is published"
    )
    parser.add_argument("--quick", action="store_true", help="64 contexts; nothing is published")
    parser.add_argument("--keep", action="store_true", help="keep the database")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare, measure, and return all numbers."""
    compared = sizes(quick=options.quick)
    n_contexts = max(size.n_contexts for size in compared)
    work: Path = options.work_dir.absolute()
    facts = report.machine("torch", "transformers", "numpy")
    inputs = prepare(
        work / "dashboards",
        corpus=options.corpus,
        sae=None if options.random_sae else options.sae,
        n_contexts=n_contexts,
    )
    python = None if options.skip_peer else peer_python(work / "peer-venv")
    with server(work / "postgres-dashboards", keep=options.keep) as postgres:
        bench = Bench(inputs, work, postgres, python)
        keep_activations(bench, n_contexts, CAPTURE_PROCESSES)
        threshold = threshold_for(inputs, min(THRESHOLD_GROUPS, n_contexts // 32))
        write_jumprelu(inputs, threshold)
        forward = measure_forward(bench, 2 if options.quick else FORWARD_PAIRS)
        runs = [measure(bench, size) for size in compared]
    return {
        "machine": facts,
        "sae": {"name": "random" if options.random_sae else options.sae.name, "k": K, "threshold": threshold},
        "forward": forward,
        "runs": runs,
    }


def measure_forward(bench: Bench, pairs: int) -> dict[str, Any]:
    """Our capture against plain `transformers`."""
    LOG.info("forward pass against plain transformers, %d pairs", pairs)
    path = bench.work / "runs" / "forward.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    module = "benchmarks.dashboards.forward_job"
    run_module(module, bench.inputs.folder, str(pairs), path, log=bench.work / "logs" / "forward.log")
    result: dict[str, Any] = json.loads(path.read_text())
    LOG.info("forward pass: %.3f of plain transformers", result["ratio"])
    return result


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    options = arguments()
    with exclusive(options.work_dir):
        result = run(options)
    if options.quick or options.skip_peer or options.random_sae:
        text = json.dumps(result, indent=2) if options.skip_peer else section(result)
        LOG.info("not published:\n%s", text)
        return
    path = report.publish("dashboards", result, section(result))
    LOG.info("written: %s and the README", path.name)


if __name__ == "__main__":
    main()
