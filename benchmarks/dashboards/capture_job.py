"""Keep what the hook gives for a share of the contexts, so that a large run need not repeat the forward pass.

python -m benchmarks.dashboards.capture_job FOLDER FIRST_GROUP STOP_GROUP
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from benchmarks.dashboards.inputs import GROUP, HOOK, Inputs
from interpedia_engine.capture import capture
from interpedia_engine.hooks import parse_hook
from interpedia_engine.models import ModelSource, load_model
from interpedia_engine.models.language_model import LanguageModel

LOG = logging.getLogger("bench.capture")


def load_bench_model(inputs: Inputs) -> LanguageModel:
    """The demo model, one thread."""
    source = ModelSource("local", path=str(inputs.model))
    return load_model(source, cache_dir=inputs.folder / "cache", threads=1)


def keep_activations(inputs: Inputs, groups: range) -> None:
    """Write the files of these groups that are missing."""
    missing = [group for group in groups if not inputs.activation_file(group).exists()]
    if not missing:
        return
    inputs.activations.mkdir(exist_ok=True)
    model = load_bench_model(inputs)
    hook = parse_hook(HOOK, model.shape)
    tokens = torch.from_numpy(inputs.load_tokens(groups.stop * GROUP).astype("int64"))
    for number, group in enumerate(missing):
        values = capture(model, tokens[group * GROUP : (group + 1) * GROUP], [hook])[hook]
        path = inputs.activation_file(group)
        partial = path.with_suffix(f".{os.getpid()}.part")
        torch.save({HOOK: values}, partial)
        partial.rename(path)
        if number % 8 == 0:
            LOG.info("captured %d of %d groups", number + 1, len(missing))


def main() -> None:
    """Run the share of the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("stop", type=int)
    arguments = parser.parse_args()
    keep_activations(Inputs(arguments.folder), range(arguments.first, arguments.stop))


if __name__ == "__main__":
    main()
