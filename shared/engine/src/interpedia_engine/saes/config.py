"""`cfg.json` of an SAE in SAELens's format, read with a whitelist. No torch.

Two generations exist. Since SAELens 6 the file holds the architecture's fields and a `metadata` object with
`sae_lens_version`. Older files are flat; they are translated as SAELens translates them. Whatever is not on
the whitelist is dropped, above all what a loader might act upon (`trust_remote_code`, `dataset_path`,
`device`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from interpedia_engine.errors import BadSAEConfig, UnsupportedArchitecture

Architecture = Literal[
    "standard",
    "gated",
    "topk",
    "abstopk",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "identity",
]
Normalization = Literal["none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"]
InputTransform = Literal["none", "center"]

MAX_CONFIG_BYTES = 64 * 1024
MAX_K = 1024
MAX_D_SAE = 1 << 22
MAX_WIDTH = 1 << 20
TRANSCODERS: frozenset[str] = frozenset(
    {"transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"}
)

_REFUSED = {
    "temporal": "its code depends on the whole sequence, so features have no value at a single token",
    "matching_pursuit": "it searches greedily for up to d_in steps a token, which no request can bound",
    "batchtopk": "it is a training class, which SAELens saves for use as jumprelu; upload that",
    "matryoshka_batchtopk": "it is a training class, which SAELens saves for use as jumprelu; upload that",
    "crosscoder": "a dictionary over several sites is not supported",
}
_CENTRED_HOOKS = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "hook_embed",
)
_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_MAX_TEXT_CHARS = 300
_MAX_SCALE = 1e9
_VERSION = re.compile(r"(\d{1,6})(?:\.\d+)*", re.ASCII)
_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class SAEConfig:
    """What an SAE says about itself, checked."""

    architecture: Architecture
    d_in: int
    d_sae: int
    d_out: int
    """Equal to `d_in` but for transcoders."""
    apply_b_dec_to_input: bool = False
    normalize_activations: Normalization = "none"
    norm_scaling_factor: float | None = None
    """With `expected_average_only_in`: what raw activations are multiplied by; folded in on loading."""
    k: int | None = None
    rescale_acts_by_decoder_norm: bool = False
    is_positive_only: bool = False
    """`identity`: keep only the positive part of a coordinate."""
    dtype: str = "float32"
    """The dtype that the author computed in; ours is the loader's choice."""
    hook_name: str | None = None
    """As written by the author, any spelling; `hooks.parse_hook` reads it."""
    hook_name_out: str | None = None
    hf_hook_name: str | None = None
    input_transform: InputTransform = "none"
    """`center`: trained on centred writing weights, so the mean over coordinates is subtracted."""
    model_name: str | None = None
    training_architecture: str | None = None
    """What it was trained as, when it is saved as another, e.g. `batchtopk`."""
    sae_lens_version: str | None = None
    prepend_bos: bool | None = None
    context_size: int | None = None
    notes: tuple[str, ...] = field(default=())
    """What was translated or dropped on reading, for the person who uploads."""

    @property
    def is_transcoder(self) -> bool:
        """Whether it reads one hook and writes another."""
        return self.architecture in TRANSCODERS


def parse_config(data: bytes) -> SAEConfig:
    """Read the bytes of a `cfg.json`.

    Raises:
        BadSAEConfig: it is too large, not JSON, or a field is missing, of the wrong type or impossible.
        UnsupportedArchitecture: the architecture is not run here; the detail says why or lists those that
            are.
    """
    raw = _read_json(data)
    version = raw.get("sae_lens_version") or _object(raw, "metadata").get("sae_lens_version")
    notes: tuple[str, ...] = ()
    if not _is_version_6(version):
        raw = _from_flat(raw)
        notes = ("read as a flat configuration from before SAELens 6, because it names no later version",)
    return replace(_build(raw), notes=notes)


def _read_json(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise BadSAEConfig("cfg.json", f"has {len(data)} bytes, more than {MAX_CONFIG_BYTES}")
    try:
        raw: Any = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadSAEConfig("cfg.json", "is not JSON text in UTF-8") from error
    if not isinstance(raw, dict):
        raise BadSAEConfig("cfg.json", f"must be an object, not {type(raw).__name__}")
    return cast("dict[str, Any]", raw)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadSAEConfig("cfg.json", "names a key twice")
    return result


def _no_constant(name: str) -> float:
    raise BadSAEConfig("cfg.json", f"{name} is not JSON")


def _is_version_6(version: Any) -> bool:
    if version is None:
        return False
    match = _VERSION.match(version) if isinstance(version, str) else None
    if match is None:
        raise BadSAEConfig("metadata.sae_lens_version", f"{_show(version)} is not a version")
    return int(match[1]) >= 6


def _from_flat(old: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a flat configuration.

    Source: `handle_pre_6_0_config` of SAELens 6, whose defaults these are; unlike there, what SAELens 6
    ignores although it changes the numbers (another activation function, a finetuning scale) is refused.
    """
    new = {_OLD_NAMES.get(name, name): value for name, value in old.items() if name != "metadata"}
    new.setdefault("prepend_bos", True)
    new.setdefault("architecture", "standard")
    activation = new.get("activation_fn", "relu")
    if activation == "topk":
        new["architecture"] = "topk"
        new["k"] = _object(new, "activation_fn_kwargs").get("k", new.get("k"))
    elif activation != "relu":
        raise BadSAEConfig("activation_fn", f"{_show(activation)} is neither relu nor topk")
    if new.get("finetuning_scaling_factor"):
        raise BadSAEConfig(
            "finetuning_scaling_factor", "is no longer applied by SAELens; fold it into the weights"
        )
    if isinstance(new.get("normalize_activations"), bool):
        new["normalize_activations"] = "expected_average_only_in" if new["normalize_activations"] else "none"
    if new.get("normalize_activations") is None:
        new["normalize_activations"] = "none"
    return {**new, "metadata": dict(new)}


def _build(raw: Mapping[str, Any]) -> SAEConfig:
    architecture = _architecture(raw.get("architecture"))
    meta = _object(raw, "metadata")
    d_in = _integer(raw, "d_in", low=1, high=MAX_WIDTH)
    d_sae = _integer(raw, "d_sae", low=1, high=MAX_D_SAE)
    hook_name = _text(meta, "hook_name", "metadata.")
    normalization, scale = _normalization(raw, meta)
    if meta.get("hook_head_index") is not None:
        raise BadSAEConfig("metadata.hook_head_index", "an SAE on a single attention head is not supported")
    if raw.get("reshape_activations", "none") not in ("none", "hook_z"):
        raise BadSAEConfig(
            "reshape_activations", f"{_show(raw['reshape_activations'])} is neither none nor hook_z"
        )
    has_k = architecture in ("topk", "abstopk")
    return SAEConfig(
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        d_out=_integer(raw, "d_out", low=1, high=MAX_WIDTH) if architecture in TRANSCODERS else d_in,
        apply_b_dec_to_input=_apply_b_dec(raw, architecture),
        normalize_activations=normalization,
        norm_scaling_factor=scale,
        k=_integer(raw, "k", low=1, high=min(d_sae, MAX_K)) if has_k else None,
        rescale_acts_by_decoder_norm=has_k and _boolean(raw, "rescale_acts_by_decoder_norm", default=False),
        is_positive_only=architecture == "identity" and _boolean(raw, "is_positive_only", default=False),
        dtype=_dtype(raw),
        hook_name=hook_name,
        hook_name_out=_text(meta, "hook_name_out", "metadata."),
        hf_hook_name=_text(meta, "hf_hook_name", "metadata."),
        input_transform=_input_transform(meta, hook_name),
        model_name=_text(meta, "model_name", "metadata."),
        training_architecture=_text(meta, "training_architecture", "metadata."),
        sae_lens_version=_text(meta, "sae_lens_version", "metadata."),
        prepend_bos=_boolean(meta, "prepend_bos", default=True)
        if meta.get("prepend_bos") is not None
        else None,
        context_size=_context_size(meta),
    )


def _architecture(value: Any) -> Architecture:
    if value is None:
        raise BadSAEConfig("architecture", "is missing")
    if not isinstance(value, str):
        raise BadSAEConfig("architecture", f"must be a string, not {type(value).__name__}")
    if value in _REFUSED:
        raise UnsupportedArchitecture("architecture", f"{value} is refused: {_REFUSED[value]}")
    if value not in get_args(Architecture):
        raise UnsupportedArchitecture(
            "architecture", f"{_show(value)} is not one of {', '.join(get_args(Architecture))}"
        )
    return cast("Architecture", value)


def _normalization(raw: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[Normalization, float | None]:
    value = raw.get("normalize_activations", "none")
    if value == "covariance_whitening":
        raise BadSAEConfig(
            "normalize_activations",
            "covariance_whitening needs its statistics, which the file lacks; fold it first",
        )
    if value not in get_args(Normalization):
        raise BadSAEConfig(
            "normalize_activations", f"{_show(value)} is not one of {', '.join(get_args(Normalization))}"
        )
    scale: Any = meta.get("norm_scaling_factor")
    if value != "expected_average_only_in":
        return value, None
    if scale is None:
        raise BadSAEConfig(
            "normalize_activations",
            "expected_average_only_in multiplies activations by a number that the file lacks; fold it into "
            "the weights, or give it as metadata.norm_scaling_factor",
        )
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= _MAX_SCALE:
        raise BadSAEConfig(
            "metadata.norm_scaling_factor", f"{_show(scale)} is not a number within 0..{_MAX_SCALE:g}"
        )
    return value, float(scale)


def _apply_b_dec(raw: Mapping[str, Any], architecture: Architecture) -> bool:
    if architecture == "identity":
        return False
    applies = _boolean(raw, "apply_b_dec_to_input", default=architecture not in TRANSCODERS)
    if applies and architecture in TRANSCODERS:
        raise BadSAEConfig(
            "apply_b_dec_to_input", f"must be false for a {architecture}: its b_dec is an output bias"
        )
    return applies


def _input_transform(meta: Mapping[str, Any], hook_name: str | None) -> InputTransform:
    """Say whether centred writing weights change this SAE's input: only what is in the stream."""
    kwargs = _object(meta, "model_from_pretrained_kwargs")
    is_centred = kwargs.get("center_writing_weights") is True
    return "center" if is_centred and (hook_name or "").endswith(_CENTRED_HOOKS) else "none"


def _dtype(raw: Mapping[str, Any]) -> str:
    value = raw.get("dtype", "float32")
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    if name not in _DTYPES:
        raise BadSAEConfig("dtype", f"{_show(value)} is not one of {', '.join(_DTYPES)}")
    return str(name)


def _context_size(meta: Mapping[str, Any]) -> int | None:
    return None if meta.get("context_size") is None else _integer(meta, "context_size", low=1, high=1 << 24)


def _integer(raw: Mapping[str, Any], name: str, *, low: int, high: int) -> int:
    value = raw.get(name)
    if value is None:
        raise BadSAEConfig(name, "is missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadSAEConfig(name, f"must be an integer, not {_show(value)}")
    if not low <= value <= high:
        raise BadSAEConfig(name, f"{_show(value)} is outside {low}..{high}")
    return value


def _boolean(raw: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = raw.get(name, default)
    if not isinstance(value, bool):
        raise BadSAEConfig(name, f"must be true or false, not {_show(value)}")
    return value


def _text(raw: Mapping[str, Any], name: str, prefix: str) -> str | None:
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadSAEConfig(prefix + name, f"must be a string, not {type(value).__name__}")
    if len(value) > _MAX_TEXT_CHARS:
        raise BadSAEConfig(prefix + name, f"has {len(value)} characters, more than {_MAX_TEXT_CHARS}")
    return value


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadSAEConfig(name, f"must be an object, not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _show(value: Any) -> str:
    """Write a value from the file into a message, cut short."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
