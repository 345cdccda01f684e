"""What a reconstruction costs the language model: cross-entropy and KL after splicing."""

from dataclasses import dataclass
from typing import Any

import torch
from demo_activations import batches, watch_layers
from demo_sae import TopKSae
from torch import Tensor
from torch.nn import functional

VARIANTS = ("sae", "zero", "mean")


@dataclass(frozen=True)
class Site:
    """One place to splice.

    Attributes:
        layer: Decoder layer whose output is replaced.
        sae: What replaces it in the variant `sae`.
        mean: What replaces it in the variant `mean`, shape (d_in,).
        usable: Positions that are replaced, bool, shape (contexts, 128). The others keep
            their true values: destroying BOS would break every variant alike.
    """

    layer: int
    sae: TopKSae
    mean: Tensor
    usable: Tensor


@dataclass(frozen=True)
class Losses:
    """Per-context means over predicted tokens, nats, float64.

    Attributes:
        ce: Cross-entropy by name, each of shape (contexts,): `original` and, for every
            layer, `15/sae`, `15/zero`, `15/mean`.
        kl: KL(original || variant) by the same names but `original`.
        control: Largest difference of logits between the full pass and a pass resumed from
            an unchanged layer output; shows that resuming is exact.
    """

    ce: dict[str, Tensor]
    kl: dict[str, Tensor]
    control: float


def resume(model: Any, hidden: Tensor, layer: int) -> Tensor:
    """Runs the layers above `layer` and the head on its (replaced) output.

    Args:
        model: The language model.
        hidden: Residual stream after `layer`, shape (batch, 128, d_in).
        layer: Decoder layer that `hidden` comes out of.

    Returns:
        Logits, shape (batch, 126, vocabulary), at positions 1 to 126: the positions that
        splicing touches and that have a next token.
    """
    body = model.model
    whole = body.layers
    body.layers = whole[layer + 1 :]
    try:
        top = body(inputs_embeds=hidden, use_cache=False).last_hidden_state
    finally:
        body.layers = whole
    return model.lm_head(top[:, 1:-1])


def spliced(site: Site, hidden: Tensor, usable: Tensor, variant: str) -> Tensor:
    """Replaces the usable positions of `hidden`, shape (batch, 128, d_in)."""
    if variant == "sae":
        new = site.sae.reconstruct(hidden)
    else:
        new = (site.mean if variant == "mean" else torch.zeros_like(site.mean)).expand_as(hidden)
    return torch.where(usable[..., None], new, hidden)


def cross_entropy(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean next-token loss of each context, nats, float64, shape (batch,)."""
    picked = log_probs.gather(-1, targets[..., None]).squeeze(-1)
    return -picked.double().mean(dim=1)


@torch.inference_mode()
def measure_losses(model: Any, tokens: Tensor, sites: list[Site], batch: int = 8) -> Losses:
    """Measures every variant at every site.

    Args:
        model: The language model, fp32.
        tokens: Contexts, int64, shape (contexts, 128).
        sites: Where to splice; `usable` rows match `tokens` rows.
        batch: Contexts at a time.
    """
    seen = watch_layers(model.model.layers, tuple(site.layer for site in sites))
    ce: dict[str, list[Tensor]] = {}
    kl: dict[str, list[Tensor]] = {}
    control = 0.0
    for part in batches(0, len(tokens), batch):
        targets = tokens[part, 2:]
        top = model.model(input_ids=tokens[part], use_cache=False).last_hidden_state
        logits = model.lm_head(top[:, 1:-1])
        hiddens = {site.layer: seen[site.layer].clone() for site in sites}
        if part.start == 0:
            again = resume(model, hiddens[sites[0].layer], sites[0].layer)
            control = (again - logits).abs().max().item()
        original = functional.log_softmax(logits, dim=-1)
        ce.setdefault("original", []).append(cross_entropy(original, targets))
        for site in sites:
            for variant in VARIANTS:
                hidden = spliced(site, hiddens[site.layer], site.usable[part], variant)
                changed = functional.log_softmax(resume(model, hidden, site.layer), dim=-1)
                name = f"{site.layer}/{variant}"
                ce.setdefault(name, []).append(cross_entropy(changed, targets))
                distance = (original.exp() * (original - changed)).sum(-1)
                kl.setdefault(name, []).append(distance.double().mean(dim=1))
    return Losses(
        {name: torch.cat(parts) for name, parts in ce.items()},
        {name: torch.cat(parts) for name, parts in kl.items()},
        control,
    )
