"""One run of SAEDashboard 0.8.0, in its own environment, measured from inside.

    python sae_dashboard_job.py job.json

runs in a folder that holds `model/` (Hugging Face layout), `sae/` (SAELens layout) and `tokens.pt` (ids,
[n, 128]), and writes the file that the job names as its report. The peer's runner is used as it comes,
but for three things:

- its model loader knows only listed names; here it also takes a folder, which the loader behind it can read;
- that loader's Llama branch ignores `rope_theta`, so it is added: without it the peer computes another model;
- the forward pass is timed.

The tokens are its own restart file, `tokens_{n}.pt`, written before it starts; its data set is a one-line
stand-in that it insists on opening. An activation cache that is already there is used by the peer itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOG = logging.getLogger("bench.peer")
SAE_SET = "bench"
MODEL = "model"  # relative, and free of the words by which the peer guesses an architecture from a path


@dataclass(frozen=True)
class Job:
    """What to run; a run's folder is the working directory."""

    n_contexts: int
    report: str
    first_batch: int
    last_batch: int | None
    activations: str | None
    """A folder with `model_activations_{i}.pt`, if the forward pass is not to be run."""


@dataclass
class Report:
    """CPU seconds of the whole process by phase, wall seconds, bytes."""

    load_cpu_s: float = 0.0
    forward_cpu_s: float = 0.0
    rest_cpu_s: float = 0.0
    load_wall_s: float = 0.0
    forward_wall_s: float = 0.0
    rest_wall_s: float = 0.0
    once_cpu_s: float | None = None
    """The part of `rest_cpu_s` before the first batch of features."""
    forward_calls: int = 0
    features: int = 0
    json_bytes: int = 0
    peak_bytes: int = 0
    versions: dict[str, str] | None = None
    output: str = ""


class Clock:
    """CPU and wall seconds since the process began measuring."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()

    def now(self) -> tuple[float, float]:
        """CPU seconds of all threads, wall seconds."""
        return time.process_time(), time.perf_counter() - self._wall


@contextlib.contextmanager
def changed(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Generator[None]:
    """Replace an attribute by a wrapper of itself for a while."""
    original = getattr(owner, name)
    setattr(owner, name, wrap(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def accept_folders(original: Callable[[str], str]) -> Callable[[str], str]:
    """A model name that is a folder is its own official name."""

    def named(model_name: str) -> str:
        return model_name if Path(model_name).is_dir() else original(model_name)

    return named


def add_rotary_base(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Take `rope_theta` over from the model's configuration."""

    def converted(model_name: str, **arguments: Any) -> dict[str, Any]:
        settings = original(model_name, **arguments)
        if Path(model_name).is_dir():
            settings["rotary_base"] = json.loads((Path(model_name) / "config.json").read_text())["rope_theta"]
        return settings

    return converted


def timed(report: Report, clock: Clock) -> Callable[[Any], Any]:
    """Add up what the forward passes take."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **named: Any) -> Any:
            cpu, wall = clock.now()
            result = original(*arguments, **named)
            report.forward_cpu_s += clock.now()[0] - cpu
            report.forward_wall_s += clock.now()[1] - wall
            report.forward_calls += 1
            return result

        return forward

    return wrap


def noting_first(report: Report, clock: Clock) -> Callable[[Any], Any]:
    """Note when the first batch begins."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def run_batch(*arguments: Any, **named: Any) -> Any:
            if report.once_cpu_s is None:
                report.once_cpu_s = clock.now()[0] - report.load_cpu_s
            return original(*arguments, **named)

        return run_batch

    return wrap


def peak_memory() -> int:
    """Most bytes that this process had in memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def write_stand_in_dataset() -> str:
    """The runner opens a data set even when its tokens are there."""
    folder = Path("dataset")
    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text(json.dumps({"text": "stand-in"}) + "\n")
    return str(folder)


def make_runner(job: Job) -> Any:
    """The peer's runner with its own defaults, but for the sizes of the corpus and the batches to run."""
    runner_module = importlib.import_module("sae_dashboard.neuronpedia.neuronpedia_runner")
    config_module = importlib.import_module("sae_dashboard.neuronpedia.neuronpedia_runner_config")
    loading = importlib.import_module("transformer_lens.loading_from_pretrained")
    config = config_module.NeuronpediaRunnerConfig(
        sae_set=SAE_SET,
        sae_path="sae",
        from_local_sae=True,
        outputs_dir="outputs",
        huggingface_dataset_path=write_stand_in_dataset(),
        n_prompts_total=job.n_contexts,
        start_batch=job.first_batch,
        end_batch=job.last_batch,
        sae_dtype="float32",
        model_dtype="float32",
    )
    with (
        changed(loading, "get_official_model_name", accept_folders),
        changed(loading, "convert_hf_model_config", add_rotary_base),
    ):
        return runner_module.NeuronpediaRunner(config)


def place_inputs(runner: Any, job: Job) -> None:
    """Put the tokens, and the activations if there are any, where the peer looks for them."""
    shutil.copyfile("tokens.pt", Path(runner.cfg.outputs_dir) / f"tokens_{job.n_contexts}.pt")
    if job.activations is None:
        return
    cache = Path(runner.cached_activations_dir)
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        cache.symlink_to(Path(job.activations).resolve(), target_is_directory=True)


def run(job: Job) -> Report:
    """Load, run, and say what it took."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    report, clock = Report(), Clock()
    wrapper = importlib.import_module("sae_dashboard.transformer_lens_wrapper").TransformerLensWrapper
    runner = make_runner(job)
    place_inputs(runner, job)
    report.load_cpu_s, report.load_wall_s = clock.now()
    batches = importlib.import_module("sae_dashboard.sae_vis_runner").SaeVisRunner
    with (
        changed(wrapper, "forward", timed(report, clock)),
        changed(batches, "run", noting_first(report, clock)),
    ):
        runner.run()
    cpu, wall = clock.now()
    report.peak_bytes = peak_memory()
    report.rest_cpu_s = cpu - report.load_cpu_s - report.forward_cpu_s
    report.rest_wall_s = wall - report.load_wall_s - report.forward_wall_s
    files = sorted(Path(runner.cfg.outputs_dir).glob("batch-*.json"))
    report.output = str(Path(runner.cfg.outputs_dir).resolve())
    report.json_bytes = sum(file.stat().st_size for file in files)
    report.features = sum(len(json.loads(file.read_text())["features"]) for file in files)
    report.versions = {
        name: importlib.import_module(name).__version__ for name in ("torch", "transformers", "sae_lens")
    }
    return report


def main() -> int:
    """Run the job of the command line."""
    logging.basicConfig(level=logging.INFO)
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    report = run(job)
    Path(job.report).write_text(json.dumps(asdict(report), indent=2) + "\n")
    LOG.info("done: %s", job.report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
