"""`python -m benchmarks.store`: measure, write `results/store.json` and the README's tables."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from benchmarks import report
from benchmarks.catalogue import Registered
from benchmarks.database import migrated, server
from benchmarks.latency import KeepAlive, summarise
from benchmarks.processes import exclusive
from benchmarks.services import service
from benchmarks.store import gateway, ours, per_example
from benchmarks.store.meter import Load
from benchmarks.store.synthetic import Shape, contexts, vocabulary
from benchmarks.store.table import section

LOG = logging.getLogger("bench.store")
LOOKUPS = 1000
WARM_UP = 100


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store")
    parser.add_argument(
        "--work-dir", type=Path, default=report.ROOT / "var" / "bench", help="some 3 GB, emptied after"
    )
    parser.add_argument(
        "--features", type=int, help="features in all, of 24,576 an SAE; fewer are not published"
    )
    parser.add_argument(
        "--per-example-features", type=int, default=8192, help="how many to load the other way"
    )
    parser.add_argument("--quick", action="store_true", help="one SAE; nothing is published")
    parser.add_argument("--keep", action="store_true", help="keep the database")
    return parser.parse_args()


def shape_of(options: argparse.Namespace) -> Shape:
    """What to load."""
    whole = Shape()
    wanted: int = options.features or (whole.features_per_version if options.quick else whole.n_features)
    per_version = min(wanted, whole.features_per_version)
    return Shape(n_versions=-(-wanted // per_version), features_per_version=per_version)


def run(options: argparse.Namespace, shape: Shape) -> dict[str, Any]:
    """Load both ways, ask both ways, return all numbers."""
    work: Path = options.work_dir.absolute()
    result: dict[str, Any] = {
        "machine": report.machine("asyncpg", "sqlalchemy", "fastapi"),
        "shape": {**asdict(shape), "n_features": shape.n_features},
    }
    tokens = contexts(shape)
    with server(work / "postgres-store", keep=options.keep) as postgres:
        url = migrated(postgres, "ours")
        other_url = postgres.create_database("per_example")
        registered = asyncio.run(ours.prepare(url, shape))
        n_features = min(options.per_example_features, shape.features_per_version)

        async def load() -> tuple[Load, Load]:
            # By turns: whatever else the machine does meanwhile slows down both alike.
            turns = asyncio.Lock()
            return await asyncio.gather(
                ours.load(url, shape, registered, tokens, turns=turns),
                per_example.load(other_url, shape, n_features, tokens, turns=turns),
            )

        result["ours"], result["per_example"] = map(_loaded, asyncio.run(load()))
        result |= _ask_gateway(url, work, shape)
        result["lookup"] = asyncio.run(_lookups(url, shape, _our_lookup(registered)))
        small = Shape(n_versions=1, features_per_version=n_features)
        result["per_example_lookup"] = asyncio.run(_lookups(other_url, small, _other_lookup))
    return result | _extrapolated(result)


def _loaded(load: Load) -> dict[str, float]:
    return {**asdict(load), "seconds": load.seconds}


def _ask_gateway(url: str, work: Path, shape: Shape) -> dict[str, Any]:
    median = float(np.exp((np.log(2e-6) + np.log(2e-2)) / 2))
    with service("gateway", url=url, work=work, environment={}) as running:
        client = KeepAlive(running.base)
        LOG.info("asking the gateway")
        answers = {
            "dashboards": gateway.dashboards(client, shape),
            "lists": gateway.lists(client, shape, median),
            "promotes": gateway.promoting(client, shape, range(1, 2000)),
        }
        client.close()
    LOG.info("gateway: %s", json.dumps(answers))
    return answers


Lookup = Callable[[asyncpg.Connection, int, int], Awaitable[bytes]]


def _our_lookup(registered: Registered) -> Lookup:
    shown = [token.decode() for token in vocabulary()]  # once, as the gateway keeps them

    async def lookup(connection: asyncpg.Connection, version: int, index: int) -> bytes:
        return await ours.lookup(connection, registered, shown, version=version, index=index)

    return lookup


async def _other_lookup(connection: asyncpg.Connection, _version: int, index: int) -> bytes:
    return await per_example.lookup(connection, index=index)


async def _lookups(url: str, shape: Shape, lookup: Lookup) -> dict[str, Any]:
    """Random dashboards by plain SQL in this process."""
    random = np.random.default_rng(6)
    versions = random.integers(0, shape.n_versions, LOOKUPS).tolist()
    indices = random.integers(0, shape.features_per_version, LOOKUPS).tolist()
    connection = await asyncpg.connect(url)
    times: list[float] = []
    sizes: list[int] = []
    try:
        for number, (version, index) in enumerate(
            zip([*versions[:WARM_UP], *versions], [*indices[:WARM_UP], *indices], strict=True)
        ):
            began = time.perf_counter()
            body = await lookup(connection, version, index)
            if number >= WARM_UP:
                times.append(time.perf_counter() - began)
                sizes.append(len(body))
    finally:
        await connection.close()
    return asdict(summarise(times, sizes))


def _extrapolated(result: dict[str, Any]) -> dict[str, Any]:
    """The other schema at full size, linearly, and the ratios."""
    mine, other = result["ours"], result["per_example"]
    share = mine["n_features"] / other["n_features"]
    whole = {name: other[name] * share for name in ("bytes", "copy_s", "pack_s", "seconds", "cpu_s")}
    lists = result["lists"]
    ratios = {name: whole[name] / mine[name] for name in ("bytes", "copy_s", "seconds", "cpu_s")}
    if "1000" in lists:
        ratios["list_p99_page_1000_over_page_1"] = lists["1000"]["p99_s"] / lists["1"]["p99_s"]
    return {"per_example_whole": whole, "ratios": ratios}


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    options = arguments()
    shape = shape_of(options)
    with exclusive(options.work_dir):
        result = run(options, shape)
    LOG.info("ratios: %s", json.dumps(result["ratios"]))
    if shape != Shape():
        LOG.info("not published:\n%s", section(result))
        return
    path = report.publish("store", result, section(result))
    LOG.info("written: %s and the README", path.name)


if __name__ == "__main__":
    main()
