"""The checked intake of an SAE's files. No torch: safe to run where no model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interpedia_engine.errors import BadSAEConfig, BadWeights, WidthMismatch
from interpedia_engine.hooks import Hook, ModelShape, hook_width, parse_hook
from interpedia_engine.layouts import layout_of
from interpedia_engine.saes.config import MAX_CONFIG_BYTES, SAEConfig, parse_config
from interpedia_engine.saes.header import DTYPE_BYTES, TensorEntry, WeightsHeader, read_header
from interpedia_engine.saes.tensors import OPTIONAL_TENSORS, check_tensors

__all__ = ["SAEFiles", "SAEInfo", "check_sae", "find_files", "read_header", "resolve_hooks"]

CONFIG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"
SPARSITY_NAME = "sparsity.safetensors"
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class SAEFiles:
    """The files of one SAE; `weights` is None for `identity`, which has none."""

    config: Path
    weights: Path | None


@dataclass(frozen=True)
class SAEInfo:
    """What was found in an SAE's files."""

    cfg: SAEConfig
    hook: Hook
    hook_out: Hook
    """Where the decoder writes; equal to `hook` but for transcoders."""
    stored_dtypes: tuple[str, ...]
    n_weight_bytes: int
    weights_sha256: str | None
    config_sha256: str
    decoder_norms: tuple[float, float, float] | None
    """Minimum, median and maximum of the Euclidean norms of W_dec's rows."""


def find_files(files: Path | str | Mapping[str, Path]) -> SAEFiles:
    """Sort out the files of an SAE: `cfg.json`, one weights file, and nothing else.

    Args:
        files: A folder, or paths by file name where the paths themselves say nothing (a content-addressed
            store).

    Raises:
        BadSAEConfig: there is no `cfg.json`.
        BadWeights: there are several weights files, or a file of another kind.
    """
    by_name = (
        dict(files)
        if isinstance(files, Mapping)
        else {path.name: path for path in sorted(Path(files).iterdir())}
    )
    if CONFIG_NAME not in by_name:
        raise BadSAEConfig(CONFIG_NAME, "is missing")
    weights: list[str] = []
    for name in sorted(by_name):
        if name in (CONFIG_NAME, SPARSITY_NAME):
            continue
        if not name.endswith(".safetensors"):
            raise BadWeights(name[:100], "is neither cfg.json nor a .safetensors file")
        weights.append(name)
    if WEIGHTS_NAME in weights and len(weights) > 1:
        raise BadWeights(
            "weights", f"there is {WEIGHTS_NAME} and also {len(weights) - 1} other weights file(s)"
        )
    if len(weights) > 1:
        raise BadWeights("weights", f"one weights file is expected, there are {len(weights)}")
    return SAEFiles(by_name[CONFIG_NAME], by_name[weights[0]] if weights else None)


def read_config(files: SAEFiles) -> SAEConfig:
    """Read `cfg.json`, never more of it than the cap.

    Raises:
        BadSAEConfig, UnsupportedArchitecture: see `parse_config`.
    """
    with files.config.open("rb") as file:
        return parse_config(file.read(MAX_CONFIG_BYTES + 1))


def check_layout(cfg: SAEConfig, files: SAEFiles) -> WeightsHeader | None:
    """Check that the weights file is there, well-formed and in the shapes of `cfg`; None for `identity`.

    Raises:
        BadWeights, WidthMismatch: it is not.
    """
    if cfg.architecture == "identity":
        if files.weights is not None:
            raise BadWeights("weights", "an identity dictionary has no weights")
        if cfg.d_sae != cfg.d_in:
            raise WidthMismatch(
                "d_sae", f"{cfg.d_sae} differs from d_in {cfg.d_in} of an identity dictionary"
            )
        return None
    if files.weights is None:
        raise BadWeights("weights", f"there is no .safetensors file, and a {cfg.architecture} SAE needs one")
    header = read_header(files.weights)
    check_tensors(cfg, header)
    return header


def check_sae(
    files: Path | str | Mapping[str, Path],
    shape: ModelShape,
    *,
    hook: Hook | None = None,
    hook_out: Hook | None = None,
) -> SAEInfo:
    """Check everything about an SAE that can be known without running it.

    Args:
        files: A folder, or paths by file name.
        shape: The model that it belongs to.
        hook: Where it reads, when the caller knows; else from `cfg.json`.
        hook_out: Where a transcoder writes, when the caller knows; must not contradict `cfg.json`.

    Raises:
        BadSAEConfig, UnsupportedArchitecture: `cfg.json` is refused, or `hook_out` contradicts it.
        BadWeights: the weights file is refused: its format, its tensors, or NaN or infinite values.
        WidthMismatch: a width differs from the model's at the hook, or a tensor's from `cfg.json`.
        UnknownHook, OutOfRange: the hook is not one of the model's.
    """
    found = find_files(files)
    cfg = read_config(found)
    hook, hook_out = resolve_hooks(cfg, shape, hook=hook, hook_out=hook_out)
    header = check_layout(cfg, found)
    config_sha256 = hashlib.sha256(found.config.read_bytes()).hexdigest()
    if header is None or found.weights is None:
        return SAEInfo(cfg, hook, hook_out, (), 0, None, config_sha256, None)
    return SAEInfo(
        cfg=cfg,
        hook=hook,
        hook_out=hook_out,
        stored_dtypes=tuple(sorted({entry.dtype for entry in header.entries})),
        n_weight_bytes=header.n_bytes,
        weights_sha256=_file_sha256(found.weights),
        config_sha256=config_sha256,
        decoder_norms=_check_values(cfg, found.weights, header),
    )


def resolve_hooks(
    cfg: SAEConfig, shape: ModelShape, *, hook: Hook | None = None, hook_out: Hook | None = None
) -> tuple[Hook, Hook]:
    """Return where an SAE reads and where it writes, with the widths checked.

    Raises:
        BadSAEConfig: `cfg.json` names no hook, its two names for it disagree, or `hook_out` contradicts it
            or the architecture.
        WidthMismatch: the width at a hook differs from the SAE's.
        UnknownHook, OutOfRange: a name is not one of the model's.
    """
    hook = hook or _named_hook(cfg, shape)
    if hook_width(hook, shape) != cfg.d_in:
        raise WidthMismatch(
            "d_in", f"{cfg.d_in} differs from {hook_width(hook, shape)}, the width at {hook.name}"
        )
    if cfg.input_transform == "center" and layout_of(shape.architecture).norm != "layer":
        raise BadSAEConfig(
            "metadata.model_from_pretrained_kwargs",
            "center_writing_weights means nothing for a model with RMS norms; TransformerLens ignores it",
        )
    if not cfg.is_transcoder:
        if hook_out is not None and hook_out != hook:
            raise BadSAEConfig(
                "hook_out",
                f"is {hook_out.name}, which has no meaning here: {cfg.architecture} writes where it reads, "
                f"{hook.name}",
            )
        return hook, hook
    hook_out = _resolve_out(cfg, shape, hook_out)
    if hook_width(hook_out, shape) != cfg.d_out:
        width = hook_width(hook_out, shape)
        raise WidthMismatch("d_out", f"{cfg.d_out} differs from {width}, the width at {hook_out.name}")
    return hook, hook_out


def _resolve_out(cfg: SAEConfig, shape: ModelShape, given: Hook | None) -> Hook:
    """Return where a transcoder writes; when the caller and `cfg.json` both say it, they must agree."""
    own = None if cfg.hook_name_out is None else parse_hook(cfg.hook_name_out, shape)
    if given is not None and own is not None and given != own:
        raise BadSAEConfig(
            "hook_out", f"is {given.name}, but cfg.json says metadata.hook_name_out = {own.name}"
        )
    hook_out = given or own
    if hook_out is None:
        raise BadSAEConfig("metadata.hook_name_out", "is missing; a transcoder must say where it writes")
    return hook_out


def _named_hook(cfg: SAEConfig, shape: ModelShape) -> Hook:
    names = [name for name in (cfg.hook_name, cfg.hf_hook_name) if name is not None]
    if not names:
        raise BadSAEConfig("metadata.hook_name", "is missing; the SAE must say where it reads")
    hooks = [parse_hook(name, shape) for name in names]
    if len(set(hooks)) > 1:
        raise BadSAEConfig(
            "metadata.hook_name",
            f"says {names[0]!r}, but hf_hook_name says {names[1]!r}, which is another place",
        )
    return hooks[0]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_values(cfg: SAEConfig, path: Path, header: WeightsHeader) -> tuple[float, float, float]:
    """Read every value once, in pieces, and return the decoder's norms (minimum, median, maximum)."""
    norms: list[npt.NDArray[np.float32]] = []
    for entry in header.entries:
        for values in _pieces(path, header, entry):
            if not np.isfinite(values).all():
                raise BadWeights(entry.name, "holds NaN or infinite values")
            if entry.name == "threshold" and (values < 0).any():
                raise BadWeights("threshold", f"holds negative values, the lowest is {float(values.min()):g}")
            if entry.name in OPTIONAL_TENSORS and not np.allclose(values, 1.0):
                raise BadWeights(
                    entry.name, "is not all ones, and SAELens no longer applies it; fold it first"
                )
            if entry.name == "W_dec":
                norms.append(np.linalg.norm(values, axis=1).astype(np.float32))
    all_norms = np.concatenate(norms)
    if cfg.rescale_acts_by_decoder_norm and not (all_norms > 0).all():
        raise BadWeights("W_dec", "has a row of zeros, but rescale_acts_by_decoder_norm divides by its norm")
    return float(all_norms.min()), float(np.median(all_norms)), float(all_norms.max())


def _pieces(path: Path, header: WeightsHeader, entry: TensorEntry) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a tensor as float32 in groups of whole rows (a vector counts as one column)."""
    width = int(np.prod(entry.shape[1:], dtype=np.int64)) if len(entry.shape) > 1 else 1
    rows_at_once = max(1, _CHUNK_VALUES // max(width, 1))
    row_bytes = width * DTYPE_BYTES[entry.dtype]
    n_rows = entry.shape[0] if entry.shape else 1
    with path.open("rb") as file:
        file.seek(header.data_start + entry.begin)
        for start in range(0, n_rows, rows_at_once):
            rows = min(rows_at_once, n_rows - start)
            yield _as_float32(file.read(rows * row_bytes), entry.dtype).reshape(rows, width)


def _as_float32(data: bytes, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "F32":
        return np.frombuffer(data, dtype="<f4")
    if dtype == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    # bfloat16 is the upper half of a float32.
    return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
