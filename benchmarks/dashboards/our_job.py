"""One run of our pipeline in a process of its own, measured from inside.

    python -m benchmarks.dashboards.our_job job.json

Forward pass, encoding, spill files, reduction, packing and COPY: what the ingest workers do, in their
order and with their defaults, without the queue in between. With `stored_activations` the forward pass is
replaced by reading what `capture_job` kept; all else is the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import torch
from torch import Tensor

from benchmarks.catalogue import copy_features
from benchmarks.dashboards.capture_job import load_bench_model
from benchmarks.dashboards.inputs import GROUP, HOOK, Inputs
from benchmarks.processes import peak_memory
from interpedia_engine.hooks import Hook, parse_hook
from interpedia_engine.logit_lens import logit_effects
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.saes import SAE, load_sae
from interpedia_ingest.dashboards import collect
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.result import FeatureResult, feature_row
from interpedia_ingest.dashboards.selection import Selection, shard_ranges
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.spill import open_spill
from interpedia_ingest.dashboards.target import Build, Target
from interpedia_shared.dashboards import REASON_TOP

LOG = logging.getLogger("bench.ours")
ROWS_PER_SHARD = 256
FEATURES_PER_TASK = 1024
N_TOP = 20
BOS_PAD_EOS = (1, 2)
"""The peer ignores them anywhere; so do we here."""


@dataclass(frozen=True)
class Job:
    """What to run."""

    inputs: str
    form: str
    n_contexts: int
    stored_activations: bool
    database_url: str
    version_id: int
    spills: str
    report: str


@dataclass
class Phases:
    """CPU and wall seconds by phase, of the whole process."""

    cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    wall_s: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Measure one phase."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - cpu
            self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall


@dataclass(frozen=True)
class Loaded:
    """Model, SAE and contexts in memory."""

    build: Build
    selection: Selection


def load(job: Job) -> Loaded:
    """Load what the run reads."""
    inputs = Inputs(Path(job.inputs))
    model = load_bench_model(inputs)
    hook = parse_hook(HOOK, model.shape)
    sae = load_sae(inputs.sae(job.form))
    settings = DashboardSettings(ignore_ids=BOS_PAD_EOS)
    tokens = inputs.load_tokens(job.n_contexts)
    return Loaded(
        Build(model, [Target("bench", sae, hook, hook)], settings),
        Selection(np.arange(job.n_contexts, dtype=np.uint32), tokens),
    )


def stored_activations(
    inputs: Inputs, tokens: Any
) -> Callable[[Any, Tensor, Sequence[Hook]], dict[Hook, Tensor]]:
    """A stand-in for `capture` that reads the files; a group is known by its first row."""
    groups = {tokens[first].tobytes(): first // GROUP for first in range(0, len(tokens), GROUP)}

    def read(_model: LanguageModel, ids: Tensor, hooks: Sequence[Hook]) -> dict[Hook, Tensor]:
        group = groups[ids[0].numpy().astype(tokens.dtype).tobytes()]
        (values,) = torch.load(inputs.activation_file(group)).values()
        kept: Tensor = values[: len(ids)]
        return dict.fromkeys(hooks, kept)

    return read


def collect_all(job: Job, loaded: Loaded) -> list[collect.ShardReport]:
    """All shards, one after the other."""
    return [
        collect.collect_shard(loaded.build, loaded.selection, rows=rows, out_dir=Path(job.spills))
        for rows in shard_ranges(loaded.selection.n_rows, ROWS_PER_SHARD)
    ]


def reducer(loaded: Loaded, reports: Sequence[collect.ShardReport]) -> Reducer:
    """What the reduction tasks of a worker share."""
    sae = loaded.build.targets[0].sae
    assert isinstance(sae, SAE)
    settings, model = loaded.build.settings, loaded.build.model

    def effects(features: range) -> Tensor:
        return logit_effects(sae.W_dec[features.start : features.stop], model, settings.final_norm_gain)

    return Reducer(
        [open_spill(report.spills[0].path) for report in reports],
        loaded.selection,
        settings=settings,
        decoder=sae.W_dec,
        logit_effects=effects,
    )


async def reduce_and_store(job: Job, reduction: Reducer, phases: Phases, checks: Checks) -> None:
    """Reduce, pack and COPY, a task's worth of features at a time."""
    connection = await asyncpg.connect(job.database_url)
    try:
        for first in range(0, reduction.d_sae, FEATURES_PER_TASK):
            features = range(first, min(first + FEATURES_PER_TASK, reduction.d_sae))
            with phases.phase("reduce"):
                results = list(reduction.reduce(features))
            with phases.phase("pack"):
                rows = [feature_row(result) for result in results]
            with phases.phase("copy"):
                await copy_features(connection, job.version_id, rows)
            checks.add(results)
    finally:
        await connection.close()


class Checks:
    """What the comparison with the peer looks at, by feature."""

    def __init__(self) -> None:
        self._n_active: list[int] = []
        self._tops: list[np.ndarray[Any, np.dtype[np.float32]]] = []

    def add(self, results: Sequence[FeatureResult]) -> None:
        """Note the results of a range; the work is not part of any phase."""
        for result in results:
            top = np.zeros(N_TOP, np.float32)
            peaks = [
                float(values.max())
                for number, _, values in result.examples.rows()
                if result.examples.reasons[number] == REASON_TOP
            ][:N_TOP]
            top[: len(peaks)] = peaks
            self._n_active.append(result.stats.n_active_tokens)
            self._tops.append(top)

    def save(self, path: Path) -> None:
        """Write `n_active` [n] and the maxima of the top examples, `tops` [n, 20]."""
        np.savez(path, n_active=np.array(self._n_active), tops=np.stack(self._tops))


def run(job: Job) -> dict[str, Any]:
    """Run the job and say what it took."""
    phases, checks = Phases(), Checks()
    began = time.perf_counter()
    loaded = load(job)
    load_cpu, load_wall = time.process_time(), time.perf_counter() - began
    if job.stored_activations:
        stand_in = stored_activations(Inputs(Path(job.inputs)), loaded.selection.tokens)
        setattr(collect, "capture", stand_in)  # noqa: B010 (the pipeline has no other way in, and needs none)
    with phases.phase("collect"):
        reports = collect_all(job, loaded)
    with phases.phase("reduce"):
        reduction = reducer(loaded, reports)
    asyncio.run(reduce_and_store(job, reduction, phases, checks))
    peak = peak_memory()
    checks.save(Path(job.report).with_suffix(".npz"))
    forward = sum(report.forward_cpu_seconds for report in reports)
    rest = sum(phases.cpu_s.values()) - forward
    return {
        "load_cpu_s": load_cpu,
        "load_wall_s": load_wall,
        "forward_cpu_s": forward,
        "rest_cpu_s": rest,
        "cpu_s": {
            "encode": sum(report.encode_cpu_seconds for report in reports),
            "spill": sum(report.spill_cpu_seconds for report in reports),
            **{name: value for name, value in phases.cpu_s.items() if name != "collect"},
        },
        "wall_s": phases.wall_s,
        "peak_bytes": peak,
        "features": reduction.d_sae,
        "nonzeros": sum(report.spills[0].n_nonzero for report in reports),
        "spill_bytes": sum(report.spills[0].n_bytes for report in reports),
    }


def main() -> None:
    """Run the job of the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(1)
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    Path(job.report).write_text(json.dumps(run(job), indent=2) + "\n")
    LOG.info("done: %s", asdict(job)["report"])


if __name__ == "__main__":
    main()
