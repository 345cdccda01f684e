"""What single features add to the stream, and how far a gradient lies along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.interventions.splice import token_scale
from interpedia_engine.saes.base import SAE
from interpedia_engine.saes.identity import IdentitySAE

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class Entries:
    """Features that are active somewhere in one prompt: arrays of one length.

    With the values that replace them, this is a difference of activations: taking the features out adds
    −Σ weight · row to the stream, and the gradient's estimate of that is Σ weight · (gradient · row).
    """

    position: Int[Tensor, " n"]
    feature: Int[Tensor, " n"]
    weight: Float[Tensor, " n"]
    """Activation (less what replaces it) times the token's output scale."""

    def only(self, keep: Tensor) -> Entries:
        """Return the entries where `keep` is True."""
        return Entries(self.position[keep], self.feature[keep], self.weight[keep])

    def negated(self) -> Entries:
        """Return the entries with the sign of their weights turned."""
        return Entries(self.position, self.feature, -self.weight)


def joined(parts: list[Entries]) -> Entries:
    """Return all entries of `parts`."""
    return Entries(
        torch.cat([part.position for part in parts]),
        torch.cat([part.feature for part in parts]),
        torch.cat([part.weight for part in parts]),
    )


def by_feature(entries: Entries, features: Sequence[int]) -> dict[int, Entries]:
    """Return the entries of each of `features` that has some, in the order they are in."""
    wanted = torch.tensor(list(features), dtype=torch.int64, device=entries.feature.device)
    own = entries.only(torch.isin(entries.feature, wanted))
    own = own.only(own.feature.argsort(stable=True))
    found, counts = own.feature.unique_consecutive(return_counts=True)
    sizes = counts.tolist()
    parts = zip(*(column.split(sizes) for column in (own.position, own.feature, own.weight)), strict=True)
    return {feature: Entries(*part) for feature, part in zip(found.tolist(), parts, strict=True)}


def rows_of(sae: SAE, features: Int[Tensor, " n"]) -> Float[Tensor, "n d_out"]:
    """Return what one unit of activation of each feature adds, as `SAE.decoder_rows` does for a range."""
    if isinstance(sae, IdentitySAE):
        return torch.nn.functional.one_hot(features, sae.d_out).to(sae.dtype)
    rows = sae.W_dec[features]
    if sae.cfg.rescale_acts_by_decoder_norm:
        return rows / rows.norm(dim=-1, keepdim=True)
    return rows


def active_entries(
    sae: SAE, x: Float[Tensor, "pos d_in"], *, first: int, scaled_by: Float[Tensor, "pos d_in"] | None = None
) -> tuple[Entries, Float[Tensor, " n"]]:
    """Encode a prompt from position `first` on; return the entries, and their activations unscaled.

    `scaled_by` is the input whose size the output is scaled back to, if that is not `x`.
    """
    nonzero = sae.encode_nonzero(x[first:].to(sae.device))
    scale = token_scale(sae, (x if scaled_by is None else scaled_by)[first:].to(sae.device))
    weight = nonzero.value if scale is None else nonzero.value * scale[nonzero.token, 0]
    return Entries(nonzero.token + first, nonzero.feature, weight), nonzero.value


def contribution(sae: SAE, entries: Entries, n_positions: int) -> Float[Tensor, "pos d_out"]:
    """Return Σ weight · row of the entries, by position."""
    total = torch.zeros(n_positions, sae.d_out, dtype=sae.dtype, device=sae.device)
    if isinstance(sae, IdentitySAE):
        return total.index_put_((entries.position, entries.feature), entries.weight, accumulate=True)
    for part in _chunks(sae, entries):
        total.index_add_(0, part.position, part.weight[:, None] * rows_of(sae, part.feature))
    return total


def along_rows(sae: SAE, gradient: Float[Tensor, "pos d_out"], entries: Entries) -> Float[Tensor, " n"]:
    """Return weight · (gradient · row) of each entry."""
    gradient = gradient.to(device=sae.device, dtype=sae.dtype)
    if isinstance(sae, IdentitySAE):
        return entries.weight * gradient[entries.position, entries.feature]
    parts = [
        part.weight * (gradient[part.position] * rows_of(sae, part.feature)).sum(dim=-1)
        for part in _chunks(sae, entries)
    ]
    return torch.cat(parts) if parts else entries.weight


def _chunks(sae: SAE, entries: Entries) -> list[Entries]:
    size = max(1, _CHUNK_BYTES // (4 * sae.d_out))
    return [
        Entries(entries.position[i : i + size], entries.feature[i : i + size], entries.weight[i : i + size])
        for i in range(0, len(entries.weight), size)
    ]
