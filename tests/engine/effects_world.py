"""A small world for tests of effects: dictionaries of every kind on the tiny model, and forwards by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interpedia_engine.effects import Case, Dictionary, Metric
from interpedia_engine.hooks import Hook, ModelShape, parse_hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import identity_sae, load_sae, tiny_sae

TEXT = "the cat and the dog were in the house by the river when we had music"
NORMS = ("none", "constant_norm_rescale", "layer_norm")


def make(
    folder: Path, shape: ModelShape, hook: Hook, architecture: str = "topk", **fields: Any
) -> Dictionary:
    """A random SAE of the tiny model; a transcoder writes at the same layer's `hook_mlp_out`."""
    if architecture == "identity":
        return Dictionary(f"{hook.name}-id", identity_sae(hook, shape), hook)
    name = "-".join([architecture, hook.kind, str(hook.layer), *map(str, fields.values())])
    path = tiny_sae(folder / name, shape=shape, hook=hook, overrides={"architecture": architecture} | fields)
    sae = load_sae(path)
    written = sae.cfg.hook_name_out
    return Dictionary(name, sae, hook, parse_hook(written, shape) if written else None)


def ids_of(model: LanguageModel, text: str = TEXT) -> tuple[int, ...]:
    return (1, *model.tokenize(text))


def case_of(model: LanguageModel, text: str = TEXT, **fields: Any) -> Case:
    metric = fields.pop("metric", Metric(good=(300, 310), bad=(320,)))
    return Case(ids_of(model, text), metric, **fields)


def module_of(model: LanguageModel, hook: Hook) -> tuple[torch.nn.Module, str]:
    """The module of a Llama and its side, written out by hand."""
    layer = model.hf.model.layers[hook.layer or 0]
    return {
        "embed": (model.hf.model.embed_tokens, "output"),
        "resid_pre": (layer, "input"),
        "resid_post": (layer, "output"),
        "attn_out": (layer.self_attn, "output"),
        "attn_z": (layer.self_attn.o_proj, "input"),
        "mlp_out": (layer.mlp, "output"),
        "mlp_in": (layer.post_attention_layernorm, "input"),
        "mlp_input": (layer.mlp, "input"),
        "mlp_post": (layer.mlp.down_proj, "input"),
    }[hook.kind]


def hooked_logits(
    model: LanguageModel, tokens: tuple[int, ...], changes: list[tuple[Hook, Callable[[Tensor], Tensor]]]
) -> Tensor:
    """Plain transformers with plain torch hooks: `[pos d_vocab]`."""
    handles = []
    for hook, change in changes:
        module, side = module_of(model, hook)
        if side == "input":
            handles.append(module.register_forward_pre_hook(_before(change), with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(_after(change)))
    try:
        return model.hf(torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


def _before(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    return hook


def _after(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return hook


def stream_at(model: LanguageModel, tokens: tuple[int, ...], hook: Hook) -> Tensor:
    """The activation at a hook, `[pos d]`, by hand."""
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x

    with torch.no_grad():
        hooked_logits(model, tokens, [(hook, look)])
    return seen[0][0]


def without(
    dictionary: Dictionary, x: Tensor, features: list[int], new: Tensor | float = 0.0, first: int = 1
) -> Tensor:
    """decode(f') − decode(f) by the SAE's own dense encode and decode, zero before `first`."""
    f = dictionary.sae.encode(x)
    changed = f.clone()
    changed[first:, features] = new
    return dictionary.sae.decode(changed, x) - dictionary.sae.decode(f, x)


def metric_by_hand(logits: Tensor, metric: Metric) -> Tensor:
    row = logits[-1 if metric.position is None else metric.position]
    good = torch.stack([row[i].exp() for i in metric.good]).sum().log()
    if not metric.bad:
        return good
    return good - torch.stack([row[i].exp() for i in metric.bad]).sum().log()


def active_features(dictionary: Dictionary, x: Tensor, n: int, first: int = 1) -> list[int]:
    """The n features of largest total magnitude behind BOS."""
    return dictionary.sae.encode(x)[first:].abs().sum(0).topk(n).indices.tolist()
