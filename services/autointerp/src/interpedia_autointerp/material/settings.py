"""How material is cut and divided. Part of a task, so part of its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from interpedia_autointerp.material.window import Negative, Split


def _positive_shares() -> dict[Split, float]:
    return {"explain": 0.4, "validate": 0.1, "test": 0.4, "redteam": 0.1}


def _silent_shares() -> dict[Split, float]:
    return {"explain": 0.25, "validate": 0.1, "test": 0.55, "redteam": 0.1}


def _quotas() -> dict[Negative, int]:
    return {"random": 16, "same_context": 8, "same_token": 8, "near": 8, "neighbour": 8, "edit": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialSettings:
    """Settings of a task.

    Attributes:
        window_tokens: of a window.
        before_share: how much of it is before the peak, on average; the feature has seen only that.
        positive_shares, silent_shares: how firing and silent windows are divided over the splits, as far as
            whole documents allow.
        quotas: most silent windows of each kind, all splits together.
        spare: candidates checked for each one wanted: some turn out to fire. Twice as many of the same token.
        min_positives: firing windows that both explaining and testing need; with fewer the feature is
            `insufficient`.
        min_silent: silent windows that testing needs.
        seed: of everything that is left to chance.
    """

    window_tokens: int = 32
    before_share: float = 0.75
    positive_shares: Mapping[Split, float] = field(default_factory=_positive_shares)
    silent_shares: Mapping[Split, float] = field(default_factory=_silent_shares)
    quotas: Mapping[Negative, int] = field(default_factory=_quotas)
    spare: float = 2.0
    min_positives: int = 5
    min_silent: int = 5
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a task."""
        return asdict(self)
