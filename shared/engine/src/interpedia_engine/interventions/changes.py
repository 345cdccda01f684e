"""What a change is: which feature or direction, how, how much, and at which positions.

With d the feature's decoder row (or the vector), d̂ = d/‖d‖, f the feature's activation and s the strength:

| method | feature | direction |
|---|---|---|
| `add` | h + s·d | h + s·d |
| `clamp` | h + (s − f)·d | h + (s − h·d̂)·d̂ |
| `scale` | h + (s·f − f)·d | h + (s − 1)(h·d̂)·d̂ |
| `ablate` | h − f·d | h − (h·d̂)·d̂ |
| `orthogonal` | h − s·(h·d̂)·d̂ | the same |
| `project_cap` | h + min(0, s − h·d̂)·d̂ | the same |

The reconstruction error stays: only the difference of two decodings is added. Where an SAE normalises each
token, the difference is scaled back to that token's size.

Order: all changes of one SAE's activations in a row (`add`, `clamp`, `scale`, `ablate`) read the same stream
and are written together, at the place of the first of them; several of one feature act on its activation one
after another. `orthogonal` and `project_cap` look at the stream, not at an activation: they and all changes
along directions act in the order given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.errors import OutOfRange, UnsupportedHook, WidthMismatch
from interpedia_engine.hooks import Hook, HookKind, hook_width
from interpedia_engine.interventions.splice import decoder_rows_of
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.saes.base import SAE
from interpedia_engine.sites import site

Method = Literal["add", "clamp", "scale", "ablate", "orthogonal", "project_cap"]
Positions = Literal["all", "prompt", "generated"] | frozenset[int]
"""Numbers count from a row's first token, BOS included; they reach protected positions, the words do not."""

ON_ACTIVATIONS: frozenset[Method] = frozenset({"add", "clamp", "scale", "ablate"})
"""Methods that act on a feature's activation; the others act on the stream's part along its direction."""

_WITHIN_BLOCK: tuple[HookKind, ...] = (
    *("resid_pre", "attn_z", "attn_out", "resid_mid", "mlp_in", "mlp_normalized", "mlp_input"),
    *("mlp_pre", "mlp_post", "mlp_out", "resid_post"),
)


@dataclass(frozen=True, eq=False)
class FeatureChange:
    """A change of one feature of an SAE."""

    sae: SAE
    hook: Hook
    """Where the SAE reads."""
    hook_out: Hook
    """Where it writes; equal to `hook` but for transcoders."""
    index: int
    method: Method
    strength: float = 1.0
    """In units of the activation (`add`, `clamp`) or of the stream (`project_cap`), a factor for `scale` and
    `orthogonal`, unused by `ablate`."""
    positions: Positions = "all"


@dataclass(frozen=True, eq=False)
class DirectionChange:
    """A change along a vector of one's own."""

    vector: Float[Tensor, " d"]
    """Not zero; only its direction counts, but for `add`."""
    hook: Hook
    method: Method
    strength: float = 1.0
    positions: Positions = "all"


Change = FeatureChange | DirectionChange


@dataclass(frozen=True, eq=False)
class RowChanges:
    """All changes of one row, and what its positions are."""

    changes: tuple[Change, ...] = ()
    prompt_length: int | None = None
    """Positions below it are the prompt, the others are generated; None: everything is prompt."""
    protected: frozenset[int] = field(default_factory=frozenset[int])
    """Positions that change only when they are named by number: BOS, special tokens of a chat."""


def check_change(change: Change, model: LanguageModel) -> None:
    """Check that a change can be made in this model, so that nothing fails in the middle of a batch.

    Raises:
        OutOfRange: the feature's index, a position or a hook's layer is outside its range, or the strength is
            not finite, or makes the change so large that the model's numbers cannot hold it, or the vector is
            all zeros or not finite.
        WidthMismatch: the SAE or the vector is not as wide as the hook.
        UnsupportedHook: this architecture's hook cannot be read, or not be written.
    """
    if not math.isfinite(change.strength):
        raise OutOfRange("strength", f"{change.strength} is not a finite number")
    if isinstance(change.positions, frozenset) and any(position < 0 for position in change.positions):
        raise OutOfRange("positions", f"positions count from 0, {min(change.positions)} is negative")
    if isinstance(change, FeatureChange):
        _check_feature(change, model)
    else:
        _check_direction(change, model)
    _check_size(change, model)


def changes_nothing(change: Change) -> bool:
    """Return whether a change leaves every stream as it is, whatever the input."""
    neutral = {"add": 0.0, "orthogonal": 0.0, "scale": 1.0}
    return change.strength == neutral.get(change.method)


def _check_feature(change: FeatureChange, model: LanguageModel) -> None:
    sae = change.sae
    if not 0 <= change.index < sae.d_sae:
        raise OutOfRange("feature", f"{change.index} is outside 0..{sae.d_sae - 1}")
    _check_hook(change.hook, model)
    _check_hook(change.hook_out, model)
    for hook, width, verb in ((change.hook, sae.d_in, "reads"), (change.hook_out, sae.d_out, "writes")):
        if hook_width(hook, model.shape) != width:
            raise WidthMismatch(
                "sae", f"{verb} width {width}, but {hook.name} has {hook_width(hook, model.shape)}"
            )
    site(model.hf, change.hook, architecture=model.shape.architecture)
    if change.hook != change.hook_out and _order(change.hook) >= _order(change.hook_out):
        raise UnsupportedHook(
            "hook", f"{change.hook.name} is computed after {change.hook_out.name}, which it would decide"
        )
    _check_writable(change.hook_out, model)


def _check_direction(change: DirectionChange, model: LanguageModel) -> None:
    _check_hook(change.hook, model)
    width = hook_width(change.hook, model.shape)
    if change.vector.shape != (width,):
        raise WidthMismatch(
            "vector", f"has shape {list(change.vector.shape)}, but {change.hook.name} has width {width}"
        )
    norm = float(change.vector.double().norm())
    if not math.isfinite(norm) or norm == 0.0:
        raise OutOfRange("vector", f"its Euclidean norm must be positive and finite, it is {norm}")
    _check_writable(change.hook, model)


def _check_size(change: Change, model: LanguageModel) -> None:
    if change.method == "ablate":
        return
    if isinstance(change, FeatureChange):
        direction = decoder_rows_of(change.sae, [change.index])[0].double()
    else:
        direction = change.vector.double()
        if change.method != "add":
            direction = direction / direction.norm()
    largest = abs(change.strength) * float(direction.abs().max())
    # What a feature adds is computed in the SAE's own dtype, float32 or wider than the model's.
    limit = torch.finfo(model.dtype).max
    if largest > limit:
        raise OutOfRange(
            "strength", f"{change.strength} makes numbers of {largest:.3g}, the limit is {limit:.3g}"
        )


def _check_hook(hook: Hook, model: LanguageModel) -> None:
    if hook.layer is not None and not 0 <= hook.layer < model.shape.n_layers:
        raise OutOfRange(
            "hook", f"layer {hook.layer} of {hook.name!r} is outside 0..{model.shape.n_layers - 1}"
        )


def _order(hook: Hook) -> tuple[int, int]:
    """When a hook's value is computed, within a forward pass."""
    if hook.layer is None:
        return -1, 0
    return hook.layer, _WITHIN_BLOCK.index(hook.kind)


def _check_writable(hook: Hook, model: LanguageModel) -> None:
    site(model.hf, hook, architecture=model.shape.architecture).check_writable()
