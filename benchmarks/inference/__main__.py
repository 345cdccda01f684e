"""`python -m benchmarks.inference`: measure, write `results/inference.json` and the README's table."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.database import migrated, server
from benchmarks.inference import memory, reading, steering
from benchmarks.inference.bench import Bench, Sizes
from benchmarks.inference.floor import floor
from benchmarks.inference.published import MODEL, checkpoint_in, publish
from benchmarks.inference.table import section
from benchmarks.inference.texts import Texts
from benchmarks.latency import KeepAlive
from benchmarks.processes import exclusive
from benchmarks.services import service

LOG = logging.getLogger("bench.inference")
PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "agreement": reading.agreement,
    "one_caller": reading.one_caller,
    "same_text": reading.same_text,
    "by_layer": reading.by_layer,
    "many_callers": reading.many_callers,
    "short_texts": reading.short_texts,
    "default_and_steered": steering.default_and_steered,
    "together": steering.together,
    "memory": memory.measure,
}
"""In the order in which they are measured: memory last, when everything was used once."""


def arguments() -> argparse.Namespace:
    """The command line."""
    examples = report.ROOT / "examples"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference")
    parser.add_argument(
        "--work-dir", type=Path, default=report.ROOT / "var" / "bench", help="kept between runs"
    )
    parser.add_argument("--corpus", type=Path, default=examples / "demo_corpus.jsonl.xz")
    parser.add_argument("--saes", type=Path, default=examples / "saes")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on both sides")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; nothing is published")
    parser.add_argument("--quick", action="store_true", help="few repetitions; nothing is published")
    return parser.parse_args()


@contextmanager
def opened(options: argparse.Namespace) -> Generator[Bench]:
    """Start everything: a database, the host, a gateway, the floor."""
    work: Path = options.work_dir.absolute() / "inference"
    data = work / "data"
    checkpoint = checkpoint_in(data)
    environment = {"INTERPEDIA_DATA_DIR": str(data)}
    with ExitStack() as stack:
        postgres = stack.enter_context(server(work / "postgres"))
        url = migrated(postgres, "inference")
        publish(url, data, checkpoint, options.saes)
        ours = {**environment, "INTERPEDIA_MODEL": MODEL, "INTERPEDIA_TORCH_THREADS": str(options.threads)}
        host = stack.enter_context(service("inference", url=url, work=work, environment=ours))
        gateway = partial(service, "gateway", url=url, work=work, environment=environment)
        log = work / "logs" / "floor.log"
        other = stack.enter_context(floor(checkpoint, options.saes, threads=options.threads, log=log))
        client = KeepAlive(host.base)
        stack.callback(client.close)
        texts = Texts(checkpoint / "tokenizer.json", options.corpus)
        sizes = Sizes.quick() if options.quick else Sizes()
        bench = Bench(host, gateway, client, other, texts, sizes)
        _warm_up(bench)
        yield bench


def _warm_up(bench: Bench) -> None:
    """Wait for the model, load the SAEs and run everything once on both sides."""
    while json.loads(bench.client.get("/v1/capabilities"))["state"] != "ready":
        time.sleep(0.2)
    for sae in reading.SAES:
        (text,) = bench.texts.deal(1, reading.LONG)
        bench.timed_post(reading.ACTIVATIONS, reading.reading(text.text, (0,), sae))
        bench.floor.read([text.ids], sae=sae, features=[0], batch=1)
    bench.floor.generate([1, 2, 3], rows=2, new_tokens=2)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, and return all numbers."""
    facts = report.machine("torch", "transformers", "fastapi", "uvicorn")
    with opened(options) as bench:
        parts = {name: part for name, part in PARTS.items() if name in (options.only or PARTS)}
        measured = {name: part(bench) for name, part in parts.items()}
    return {"machine": facts, "threads": options.threads, **measured}


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    options = arguments()
    with exclusive(options.work_dir / "inference"):
        result = run(options)
    if options.quick or options.only:
        text = json.dumps(result, indent=2) if options.only else section(result)
        LOG.info("not published:\n%s", text)
        return
    path = report.publish("inference", result, section(result))
    LOG.info("written: %s and the README", path.name)


if __name__ == "__main__":
    main()
