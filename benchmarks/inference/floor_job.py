"""What the same work costs without a service: plain `transformers`, a matrix product, nothing else.

    python -m benchmarks.inference.floor_job CHECKPOINT SAES THREADS

Takes one JSON object a line on standard input and answers with one a line; times itself, so that what is
between the processes counts for nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from interpedia_engine.threads import keep_freed_memory

T = TypeVar("T")


class Floor:
    """The demo model as `transformers` loads it, and the weights of TopK SAEs.

    Args:
        checkpoint: Folder in Hugging Face layout.
        saes: Folder of SAE folders.
    """

    def __init__(self, checkpoint: Path, saes: Path) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype=torch.float32)
        self._model = loaded.eval().requires_grad_(requires_grad=False)
        self._model.generation_config.eos_token_id = None  # every output is as long as it may be
        self._model.generation_config.pad_token_id = 0
        self._layers, self._norm = self._model.model.layers, self._model.model.norm
        self._saes = {folder.name: _TopK(folder) for folder in saes.iterdir() if folder.is_dir()}

    def read(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run rows of equal length up to a layer, encode all tokens but the first, take some features.

        Request: `rows` (token ids), `layer`, `sae`, `features`, `batch` (rows of a forward pass).
        """
        body = self._model.model
        body.layers, body.norm = self._layers[: request["layer"] + 1], nn.Identity()
        sae, features = self._saes[request["sae"]], request["features"]
        rows, size = torch.tensor(request["rows"]), request["batch"]

        def work() -> list[Tensor]:
            found: list[Tensor] = []
            for ids in rows.split(size):
                stream = body(input_ids=ids, use_cache=False).last_hidden_state
                found.append(sae.encode(stream[:, 1:])[..., features])
            return found

        try:
            values, spent = timed(work)
        finally:
            body.layers, body.norm = self._layers, self._norm
        return {**spent, "values": values[0][0].tolist()}

    def generate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Greedy continuation of one prompt in so many equal rows of one batch, with a KV cache.

        Request: `ids`, `rows`, `new_tokens`.
        """
        ids = torch.tensor([request["ids"]] * request["rows"])
        mask = torch.ones_like(ids)

        def work() -> Tensor:
            return self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=request["new_tokens"], do_sample=False
            )

        tokens, spent = timed(work)
        return {**spent, "token_ids": tokens[0, ids.shape[1] :].tolist()}


class _TopK:
    """Encoder of a TopK SAE as SAELens writes it."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text())
        if config["architecture"] != "topk" or config["rescale_acts_by_decoder_norm"]:
            raise ValueError(f"{folder.name} is not a plain TopK SAE")
        (file,) = folder.glob("*.safetensors")
        weights = {name: tensor.float() for name, tensor in load_file(file).items()}
        self._k: int = config["k"]
        self._encoder, self._bias, self._mean = weights["W_enc"], weights["b_enc"], weights["b_dec"]
        self._has_mean: bool = config["apply_b_dec_to_input"]

    def encode(self, x: Tensor) -> Tensor:
        """The dense code of [..., d_in]."""
        scores = (x - self._mean if self._has_mean else x) @ self._encoder + self._bias
        best = scores.topk(self._k, dim=-1)
        return torch.zeros_like(scores).scatter_(-1, best.indices, best.values.relu())


def timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """The result, and the seconds on the clock and on the CPU."""
    with torch.inference_mode():
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def main() -> None:
    """Answer until standard input ends."""
    checkpoint, saes, threads = sys.argv[1:]
    # The same as our service does for itself: its allocator and its number of threads are no merit of ours.
    keep_freed_memory()
    torch.set_num_threads(int(threads))
    floor = Floor(Path(checkpoint), Path(saes))
    operations = {"read": floor.read, "generate": floor.generate}
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(operations[request.pop("op")](request)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
