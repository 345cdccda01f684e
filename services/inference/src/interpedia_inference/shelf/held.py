"""An SAE that is loaded, with what its row says."""

from __future__ import annotations

from dataclasses import dataclass

from interpedia_engine.hooks import Hook
from interpedia_engine.saes.base import SAE


@dataclass(frozen=True, slots=True, eq=False)
class HeldSAE:
    """Stays loaded while it is borrowed."""

    slug: str
    """The SAE's id within the model."""
    sae: SAE
    hook: Hook
    """Where it reads."""
    hook_out: Hook
    """Where it writes: the same but for transcoders."""
    sae_id: int
    version_id: int | None
    """The current build, whose stored numbers count; None without dashboards."""
    weights_sha256: str | None
