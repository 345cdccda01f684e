"""One pair of runs: the same contexts and the same SAE through both pipelines."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import torch
from pydantic import SecretStr

from benchmarks.catalogue import Dictionary, Registered, Subject, copy_contexts, register, stored_bytes
from benchmarks.dashboards.check import compare
from benchmarks.dashboards.inputs import CONTEXT_LENGTH, D_MODEL, D_SAE, HOOK, LAYER, Inputs
from benchmarks.database import migrated, server_cpu_s
from benchmarks.processes import Child, run, run_module, start
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings

LOG = logging.getLogger("bench.dashboards")
PEER_BATCH = 128
N_VOCABULARY = 49_152
TOKEN_WIDTH = 2
PEER_JOB = Path(__file__).parent.parent / "peers" / "sae_dashboard_job.py"


@dataclass(frozen=True)
class Size:
    """One comparison."""

    n_contexts: int
    form: str
    peer_batches: int | None
    """Batches of 128 features that the peer runs; None means all."""
    stored_activations: bool
    """Both sides read activations instead of running the model."""

    @property
    def name(self) -> str:
        """For folders and databases."""
        return f"{self.form}_{self.n_contexts}"


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    inputs: Inputs
    work: Path
    postgres: LocalPostgres
    peer_python: Path | None


def measure(bench: Bench, size: Size) -> dict[str, Any]:
    """Run both sides and compare; without a peer only ours."""
    folder = bench.work / "runs" / size.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours = _run_ours(bench, size, folder)
    result: dict[str, Any] = {**asdict(size), "ours": ours}
    if bench.peer_python is not None:
        peer = _run_peer(bench, size, folder)
        agreement = compare(Path(peer.pop("output")), folder / "ours.npz", size.n_contexts)
        result |= {"peer": peer, "ratios": _ratios(ours, peer), "agreement": asdict(agreement)}
    shutil.rmtree(folder)
    return result


def _run_ours(bench: Bench, size: Size, folder: Path) -> dict[str, Any]:
    LOG.info("%s: ours", size.name)
    url = migrated(bench.postgres, size.name)
    registered = asyncio.run(_register(url, size))
    job = {
        "inputs": str(bench.inputs.folder),
        "form": size.form,
        "n_contexts": size.n_contexts,
        "stored_activations": size.stored_activations,
        "database_url": url,
        "version_id": registered.version_ids[size.form],
        "spills": str(folder / "spills"),
        "report": str(folder / "ours.json"),
    }
    (folder / "spills").mkdir()
    (folder / "job.json").write_text(json.dumps(job))
    before = server_cpu_s(bench.postgres)
    run_module(
        "benchmarks.dashboards.our_job",
        folder / "job.json",
        log=bench.work / "logs" / f"ours_{size.name}.log",
    )
    report: dict[str, Any] = json.loads((folder / "ours.json").read_text())
    report["server_cpu_s"] = server_cpu_s(bench.postgres) - before
    report["rest_cpu_s"] += report["server_cpu_s"]
    report["run_wall_s"] = sum(report["wall_s"].values())
    report["stored_bytes"] = asyncio.run(_stored(bench, url, size, registered))
    bench.postgres.drop_database(size.name)
    LOG.info("%s: ours, all but the forward pass: %.1f CPU s", size.name, report["rest_cpu_s"])
    return report


async def _register(url: str, size: Size) -> Registered:
    database = Database(DatabaseSettings(url=SecretStr(url)))
    subject = Subject(
        model="smollm2-135m-instruct",
        model_shape={"d_model": D_MODEL, "d_vocab": N_VOCABULARY},
        vocabulary=[b"?"] * N_VOCABULARY,
        context_length=CONTEXT_LENGTH,
        n_contexts=size.n_contexts,
        settings={},
    )
    try:
        return await register(
            database, subject, [Dictionary(size.form, size.form, HOOK, LAYER, D_MODEL, D_SAE)]
        )
    finally:
        await database.dispose()


async def _stored(bench: Bench, url: str, size: Size, registered: Registered) -> dict[str, int]:
    """Bytes of the rows with their indexes, and of the contexts that the examples point into."""
    connection = await asyncpg.connect(url)
    try:
        tokens = bench.inputs.load_tokens(size.n_contexts)
        await copy_contexts(connection, registered.corpus_id, tokens, TOKEN_WIDTH)
        features = await stored_bytes(connection, "feature")
        contexts = await stored_bytes(connection, "context")
        return {"features": features, "contexts": contexts, "total": features + contexts}
    finally:
        await connection.close()


def _run_peer(bench: Bench, size: Size, folder: Path) -> dict[str, Any]:
    LOG.info("%s: SAEDashboard, %s of its batches", size.name, size.peer_batches or "all")
    place = folder / "peer"
    place.mkdir()
    (place / "model").symlink_to(bench.inputs.model.absolute())
    (place / "sae").symlink_to(bench.inputs.sae(size.form).absolute())
    tokens = bench.inputs.load_tokens(size.n_contexts)
    torch.save(torch.from_numpy(tokens.astype("int64")), place / "tokens.pt")
    job = {
        "n_contexts": size.n_contexts,
        "report": "report.json",
        "first_batch": 0,
        "last_batch": None if size.peer_batches is None else size.peer_batches - 1,
        "activations": str(bench.inputs.activations.absolute()) if size.stored_activations else None,
    }
    (place / "job.json").write_text(json.dumps(job))
    log = bench.work / "logs" / f"peer_{size.name}.log"
    assert bench.peer_python is not None
    run([bench.peer_python.absolute(), PEER_JOB, "job.json"], log=log.absolute(), folder=place)
    report: dict[str, Any] = json.loads((place / "report.json").read_text())
    _extrapolate(report)
    LOG.info("%s: SAEDashboard, all but the forward pass: %.1f CPU s", size.name, report["rest_cpu_s"])
    return report


def _extrapolate(report: dict[str, Any]) -> None:
    """From the batches that were run to all of them: the peer does each batch alike."""
    share = D_SAE / report["features"]
    report["measured_features"] = report.pop("features")
    report["extrapolated_by"] = share
    for name, once in (("rest_cpu_s", report["once_cpu_s"]), ("rest_wall_s", 0.0), ("json_bytes", 0)):
        report[f"measured_{name}"] = report[name]
        report[name] = once + (report[name] - once) * share
    report["run_wall_s"] = report["forward_wall_s"] + report["rest_wall_s"]


def _ratios(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """How many times more the peer needs."""
    ratios = {
        "rest_cpu": peer["rest_cpu_s"] / ours["rest_cpu_s"],
        "stored": peer["json_bytes"] / ours["stored_bytes"]["total"],
        "peak_memory": peer["peak_bytes"] / ours["peak_bytes"],
    }
    if peer["forward_cpu_s"] and ours["forward_cpu_s"] and peer["forward_calls"]:
        ratios["forward_cpu"] = peer["forward_cpu_s"] / ours["forward_cpu_s"]
        ratios["run_wall"] = peer["run_wall_s"] / ours["run_wall_s"]
    return ratios


def keep_activations(bench: Bench, n_contexts: int, processes: int) -> None:
    """Run the model over the contexts once, in single-threaded processes; files that are there stay."""
    groups = n_contexts // 32
    if all(bench.inputs.activation_file(group).exists() for group in range(groups)):
        return
    LOG.info("capturing the activations of %d contexts: some minutes, once", n_contexts)
    edges = [groups * part // processes for part in range(processes + 1)]
    shares = pairwise(edges)
    children = [_start_capture(bench, first, stop) for first, stop in shares]
    for child in children:
        child.wait()


def _start_capture(bench: Bench, first: int, stop: int) -> Child:
    arguments = [str(bench.inputs.folder), str(first), str(stop)]
    command = [sys.executable, "-m", "benchmarks.dashboards.capture_job", *arguments]
    return start(command, log=bench.work / "logs" / f"capture_{first}.log")
