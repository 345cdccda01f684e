"""Hook names: the one place that knows them. No torch.

The canonical spelling is TransformerLens's. What each name means here, for a model with unprocessed weights:

| name | value | width |
|---|---|---|
| `hook_embed` | token embedding, after Gemma's scaling, before GPT-2's positions | d_model |
| `blocks.L.hook_resid_pre` `…mid` `…post` | residual stream before, within and after the block | d_model |
| `blocks.L.hook_attn_out` `hook_mlp_out` | what is added to the stream, after any post-norm | d_model |
| `blocks.L.hook_mlp_in` | the stream as the MLP's norm reads it, *before* that norm | d_model |
| `blocks.L.ln2.hook_normalized` | the MLP norm's output *without* its gain and bias | d_model |
| `blocks.L.mlp.hook_in` | the MLP's input, with gain and bias | d_model |
| `blocks.L.mlp.hook_pre` `hook_post` | neurons before the non-linearity, and as `W_out` reads them | d_mlp |
| `blocks.L.attn.hook_z` | the heads' outputs, flattened, as `W_O` reads them | n_heads · d_head |

Three of them sound alike and differ: `hook_mlp_in`, `ln2.hook_normalized` and `mlp.hook_in`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from interpedia_engine.errors import OutOfRange, UnknownHook, UnsupportedHook
from interpedia_engine.layouts import Layout, layout_of

HookKind = Literal[
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "attn_z",
    "mlp_in",
    "mlp_normalized",
    "mlp_input",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
]
Side = Literal["input", "output"]

SUFFIXES: dict[HookKind, str] = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "attn_z": "attn.hook_z",
    "mlp_in": "hook_mlp_in",
    "mlp_normalized": "ln2.hook_normalized",
    "mlp_input": "mlp.hook_in",
    "mlp_pre": "mlp.hook_pre",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
}
"""TransformerLens's name of each kind within a block."""

_BRIDGE_ALIASES: dict[str, HookKind] = {
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
    "ln2.hook_in": "mlp_in",
    "ln2.hook_out": "mlp_input",
    "attn.o.hook_in": "attn_z",
    "mlp.out.hook_in": "mlp_post",
}
"""Names that only TransformerLens 3's bridge has, and the same tensor's usual name."""

_INNER_KINDS = frozenset(
    {
        *("attn.hook_pattern", "attn.hook_attn_scores", "attn.hook_q", "attn.hook_k", "attn.hook_v"),
        *("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_result", "mlp.hook_pre_linear"),
        *("hook_q_input", "hook_k_input", "hook_v_input", "hook_attn_in"),
        *("ln1.hook_scale", "ln1.hook_normalized", "ln2.hook_scale"),
    }
)
_BLOCK_NAME = re.compile(
    r"(?P<prefix>[A-Za-z_][\w.]*?)\.(?P<layer>0|[1-9]\d{0,4})(?:\.(?P<rest>.+))?", re.ASCII
)
_MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that hooks and SAEs are checked against."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    d_head: int
    d_vocab: int
    architecture: str
    """`model_type` of the Hugging Face configuration, e.g. `llama`."""


@dataclass(frozen=True)
class Hook:
    """One place in a model; `layer` is None for `embed` only."""

    kind: HookKind
    layer: int | None

    @property
    def name(self) -> str:
        """The canonical TransformerLens spelling."""
        if self.kind == "embed":
            return "hook_embed"
        return f"blocks.{self.layer}.{SUFFIXES[self.kind]}"

    def __str__(self) -> str:
        return self.name


def hook_width(hook: Hook, shape: ModelShape) -> int:
    """Return the number of coordinates of an activation at `hook`."""
    if hook.kind == "attn_z":
        return shape.n_heads * shape.d_head
    if hook.kind in ("mlp_pre", "mlp_post"):
        return shape.d_mlp
    return shape.d_model


def module_point(kind: HookKind, layout: Layout) -> tuple[str, Side]:
    """Return the module that `kind` is read from (path within its block, "" for the block) and its side.

    Raises:
        UnsupportedHook: no plain module of this architecture carries it.
    """
    if kind == "resid_mid" and layout.is_parallel:
        raise UnsupportedHook(
            "hook", "hook_resid_mid does not exist here: attention and MLP read the same stream in parallel"
        )
    if kind == "mlp_pre" and layout.mlp_gate is None:
        raise UnsupportedHook(
            "hook", "mlp.hook_pre cannot be read here: one fused module computes gate and input"
        )
    points: dict[HookKind, tuple[str, Side]] = {
        "embed": (layout.embed, "output"),
        "resid_pre": ("", "input"),
        "resid_mid": (layout.pre_mlp_norm, "input"),
        "resid_post": ("", "output"),
        "attn_out": (layout.post_attention_norm or layout.attention, "output"),
        "attn_z": (layout.attention_out_proj, "input"),
        "mlp_in": (layout.pre_mlp_norm, "input"),
        "mlp_normalized": (layout.pre_mlp_norm, "input"),
        "mlp_input": (layout.mlp, "input"),
        "mlp_pre": (layout.mlp_gate or "", "output"),
        "mlp_post": (layout.mlp_out_proj, "input"),
        "mlp_out": (layout.post_mlp_norm or layout.mlp, "output"),
    }
    return points[kind]


def parse_hook(text: str, shape: ModelShape) -> Hook:
    """Read a hook name in any known spelling.

    Besides TransformerLens's names these spellings are known: Hugging Face module paths of the model's own
    architecture with or without `.input`/`.output` (no suffix means output), e.g. `model.layers.5`,
    `model.layers.5.self_attn.o_proj.input`, `transformer.h.5.mlp.output`; and the same without the path
    before the list of layers, as the sparsify library writes them: `layers.5`, `layers.5.mlp`,
    `embed_tokens`.

    Raises:
        UnknownHook: no such name; the detail lists near matches.
        UnsupportedHook: the name is real, but this architecture's plain modules do not carry it.
        OutOfRange: the layer is not one of the model's.
        UnsupportedArchitecture: `shape.architecture` has no layout.
    """
    layout = layout_of(shape.architecture)
    if len(text) > _MAX_NAME_CHARS:
        raise UnknownHook(
            "hook", f"a hook name has at most {_MAX_NAME_CHARS} characters, this one has {len(text)}"
        )
    if text in _embed_names(layout):
        return Hook("embed", None)
    match = _BLOCK_NAME.fullmatch(text)
    kind = _block_kind(match["prefix"], match["rest"] or "", layout) if match else None
    if match is None or kind is None:
        raise UnknownHook("hook", f"{text!r} is not a hook of this model{_near(text, layout, shape)}")
    layer = int(match["layer"])
    if layer >= shape.n_layers:
        raise OutOfRange("hook", f"layer {layer} of {text!r} is outside 0..{shape.n_layers - 1}")
    module_point(kind, layout)
    return Hook(kind, layer)


def _embed_names(layout: Layout) -> tuple[str, ...]:
    path = layout.embed
    last = path.rsplit(".", 1)[-1]
    return ("hook_embed", "embed.hook_out", path, f"{path}.output", last, f"{last}.output")


def _block_kind(prefix: str, rest: str, layout: Layout) -> HookKind | None:
    if prefix == "blocks":
        if rest in _INNER_KINDS:
            raise UnsupportedHook(
                "hook", f"{rest} lies inside a module: plain transformers modules do not expose it"
            )
        return _transformer_lens_kinds(layout).get(rest)
    if prefix not in (layout.layers, layout.layers.rsplit(".", 1)[-1]):
        return None
    path, side = rest, "output"
    head, _, tail = rest.rpartition(".")
    if tail in ("input", "output"):
        path, side = head, tail
    if side == "output" and path in _outputs_before_post_norm(layout):
        raise UnsupportedHook(
            "hook",
            f"the output of {path!r} passes a norm before it joins the residual stream here; "
            "name hook_attn_out or hook_mlp_out, which are what is added to it",
        )
    return _module_kinds(layout).get((path, side))


@lru_cache(maxsize=64)
def _transformer_lens_kinds(layout: Layout) -> dict[str, HookKind]:
    kinds: dict[str, HookKind] = {suffix: kind for kind, suffix in SUFFIXES.items()}
    kinds.update(_BRIDGE_ALIASES)
    if layout.post_attention_norm is None:
        kinds["attn.hook_out"] = "attn_out"
    if layout.post_mlp_norm is None:
        kinds["mlp.hook_out"] = "mlp_out"
    return kinds


@lru_cache(maxsize=64)
def _module_kinds(layout: Layout) -> dict[tuple[str, str], HookKind]:
    """Map (module path within a block, side) to the kind of hook that is the same tensor."""
    kinds: dict[tuple[str, str], HookKind] = {
        (layout.pre_attention_norm, "input"): "resid_pre",
        (layout.pre_mlp_norm, "output"): "mlp_input",
        (layout.pre_mlp_norm, "input"): "mlp_in" if layout.is_parallel else "resid_mid",
    }
    for kind in SUFFIXES:
        if kind in ("mlp_in", "mlp_normalized", "resid_mid") or (
            kind == "mlp_pre" and layout.mlp_gate is None
        ):
            continue
        kinds[module_point(kind, layout)] = kind
    if layout.post_attention_norm is None:
        kinds[(layout.attention_out_proj, "output")] = "attn_out"
    if layout.post_mlp_norm is None:
        kinds[(layout.mlp_out_proj, "output")] = "mlp_out"
    return kinds


def _outputs_before_post_norm(layout: Layout) -> frozenset[str]:
    paths: set[str] = set()
    if layout.post_attention_norm is not None:
        paths |= {layout.attention, layout.attention_out_proj}
    if layout.post_mlp_norm is not None:
        paths |= {layout.mlp, layout.mlp_out_proj}
    return frozenset(paths)


def _spellings(layout: Layout, layer: int) -> Iterator[str]:
    yield "hook_embed"
    for suffix in SUFFIXES.values():
        yield f"blocks.{layer}.{suffix}"
    for path, side in _module_kinds(layout):
        yield ".".join(part for part in (layout.layers, str(layer), path, side) if part)


def _near(text: str, layout: Layout, shape: ModelShape) -> str:
    numbers = re.findall(r"(?<![\w])\d{1,5}(?![\w])", text)
    layer = min(int(numbers[0]), shape.n_layers - 1) if numbers else 0
    near = difflib.get_close_matches(text, list(_spellings(layout, layer)), n=3, cutoff=0.5)
    return f"; near matches: {', '.join(near)}" if near else ""
