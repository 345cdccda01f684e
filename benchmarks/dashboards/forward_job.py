"""Our capture against the floor: plain `transformers` with the layers above the hook cut off.

    python -m benchmarks.dashboards.forward_job FOLDER REPEATS REPORT

Both run the same contexts by turns in one process with one thread; the ratio is the median over pairs.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.dashboards.capture_job import load_bench_model
from benchmarks.dashboards.inputs import HOOK, LAYER, Inputs
from interpedia_engine.capture import capture
from interpedia_engine.hooks import parse_hook

LOG = logging.getLogger("bench.forward")
N_CONTEXTS = 8


def truncated(folder: Path) -> Callable[[Tensor], Tensor]:
    """The stream after layer 15, by a model that has no later layer and no final norm."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    body = loaded.eval().requires_grad_(requires_grad=False).model
    body.layers = body.layers[: LAYER + 1]
    body.norm = nn.Identity()

    def forward(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            return body(input_ids=tokens, use_cache=False).last_hidden_state

    return forward


def timed(forward: Callable[[Tensor], Tensor], tokens: Tensor) -> tuple[float, Tensor]:
    """CPU seconds of one pass, and what it gave."""
    began = time.process_time()
    result = forward(tokens)
    return time.process_time() - began, result


def run(inputs: Inputs, repeats: int) -> dict[str, Any]:
    """Time both by turns, each first in every other pair."""
    model = load_bench_model(inputs)
    hook = parse_hook(HOOK, model.shape)
    floor = truncated(inputs.model)
    tokens = torch.from_numpy(inputs.load_tokens(N_CONTEXTS).astype("int64"))

    def ours(ids: Tensor) -> Tensor:
        return capture(model, ids, [hook])[hook]

    difference = float((ours(tokens) - floor(tokens)).abs().max())
    pairs: list[tuple[float, float]] = []
    for number in range(repeats):
        if number % 2:
            mine, theirs = timed(ours, tokens)[0], timed(floor, tokens)[0]
        else:
            theirs, mine = timed(floor, tokens)[0], timed(ours, tokens)[0]
        pairs.append((mine, theirs))
        LOG.info("pair %d of %d: %.2f s, %.2f s", number + 1, repeats, mine, theirs)
    return {
        "contexts": N_CONTEXTS,
        "pairs": len(pairs),
        "ours_cpu_s": statistics.median(mine for mine, _ in pairs),
        "plain_cpu_s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
        "largest_difference": difference,
    }


def main() -> None:
    """Run what the command line says."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(1)
    folder, repeats, report = sys.argv[1:]
    result = run(Inputs(Path(folder)), int(repeats))
    Path(report).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
