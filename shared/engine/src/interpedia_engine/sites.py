"""From a hook to the module it sits on: where to read, and where an intervention may write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.hooks import Hook, Side, module_point
from interpedia_engine.layouts import Layout, layout_of

Edit = Callable[[Float[Tensor, "batch pos d"]], Float[Tensor, "batch pos d"]]
Observe = Callable[[Float[Tensor, "batch pos d"]], None]


@dataclass(frozen=True)
class Site:
    """The module and side that a hook sits on."""

    hook: Hook
    module: nn.Module
    side: Side
    without_gain: Callable[[Tensor], Tensor] | None = None
    """For `ln2.hook_normalized`: computes the value from the norm's input."""
    read_only_because: str | None = None

    def observe(self, callback: Observe) -> RemovableHandle:
        """Call `callback` with the activation in every forward pass, until the handle is removed."""
        read = self.without_gain or _unchanged

        def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            callback(read(_first_input(args, kwargs)))

        def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            callback(read(_first_output(output)))

        if self.side == "input":
            return self.module.register_forward_pre_hook(on_input, with_kwargs=True)
        return self.module.register_forward_hook(on_output)

    def check_writable(self) -> None:
        """Refuse a hook that can only be read.

        Raises:
            UnsupportedHook: writing here would not change what later layers read as this hook's value.
        """
        if self.read_only_because is not None:
            raise UnsupportedHook(
                "hook", f"{self.hook.name} can be read, not written: {self.read_only_because}"
            )

    def edit(self, change: Edit) -> RemovableHandle:
        """Replace the activation by `change(activation)` in every forward pass, until the handle is removed.

        Raises:
            UnsupportedHook: writing here would not change what later layers read as this hook's value.
        """
        self.check_writable()

        def on_input(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            changed = change(_first_input(args, kwargs))
            if args:
                return (changed, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": changed}

        def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            changed = change(_first_output(output))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        if self.side == "input":
            return self.module.register_forward_pre_hook(on_input, with_kwargs=True)
        return self.module.register_forward_hook(on_output)


def site(module: nn.Module, hook: Hook, *, architecture: str) -> Site:
    """Find the site of `hook` in a Hugging Face causal language model.

    Args:
        module: The model (`LanguageModel.hf`).
        hook: From `parse_hook`.
        architecture: `ModelShape.architecture` of the model.

    Raises:
        UnsupportedHook: this architecture's plain modules do not carry the hook.
        UnsupportedArchitecture: there is no layout for it.
    """
    layout = layout_of(architecture)
    path, side = module_point(hook.kind, layout)
    if hook.kind == "embed":
        return Site(hook, module.get_submodule(path), side)
    block = module.get_submodule(f"{layout.layers}.{hook.layer}")
    target = block.get_submodule(path) if path else block
    without_gain = _normaliser(target, layout) if hook.kind == "mlp_normalized" else None
    return Site(hook, target, side, without_gain, _read_only_reason(hook))


def _read_only_reason(hook: Hook) -> str | None:
    if hook.kind == "resid_mid":
        return "the block keeps its own copy of the stream for the skip connection; write at hook_attn_out"
    if hook.kind == "mlp_normalized":
        return "it is computed from the norm's input; write at mlp.hook_in"
    return None


def _normaliser(norm: nn.Module, layout: Layout) -> Callable[[Tensor], Tensor]:
    """Return the norm without gain and bias, in float32 inside as the modules compute it."""
    epsilon = _epsilon(norm)
    is_centred = layout.norm == "layer"

    def normalise(x: Tensor) -> Tensor:
        values = x.float()
        if is_centred:
            values = values - values.mean(dim=-1, keepdim=True)
        scale = torch.rsqrt(values.pow(2).mean(dim=-1, keepdim=True) + epsilon)
        return (values * scale).to(x.dtype)

    return normalise


def _epsilon(norm: nn.Module) -> float:
    for name in ("variance_epsilon", "eps"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    raise UnsupportedHook("hook", f"the norm {type(norm).__name__} does not say its epsilon")


def _unchanged(x: Tensor) -> Tensor:
    return x


def _first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
