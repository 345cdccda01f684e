"""Everything that the numbers of a dashboard depend on besides model, SAE and corpus."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from interpedia_ingest.dashboards.errors import BadSettings
from interpedia_ingest.dashboards.hashing import digest_of
from interpedia_shared.dashboards import HISTOGRAM_BINS, N_INTERVALS

ALGORITHM_VERSION = 1
"""Raised whenever the same input would give other numbers."""

BATCH_ROWS = 32
"""Contexts in one forward pass; shards begin at multiples of it."""

_AT_LEAST_ONE = (
    "context_length",
    "k_top",
    "per_interval",
    "n_ranked",
    "coactive_tokens",
    "coactive_min_count",
)
_AT_LEAST_ZERO = ("n_random", "repeat_window", "reconstruction_groups", "seed")
_TUPLES = ("ignore_ids", "ignore_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSettings:
    """Settings of one build; stored with it (`sae_version.settings`)."""

    seed: int = 0
    context_length: int = 128
    """Tokens of a context, BOS included."""
    prepend_bos: bool = True
    """Position 0 holds a BOS that the corpus put there; it does not count."""
    ignore_ids: tuple[int, ...] = ()
    """Token ids that never count (BOS, padding, end of text)."""
    ignore_positions: tuple[int, ...] = ()
    norm_multiple: float | None = None
    """Positions whose norm exceeds this multiple of the first 32 contexts' median do not count."""
    k_top: int = 20
    per_interval: int = 5
    n_random: int = 5
    repeat_window: int = 8
    """Tokens on each side of the peak that make two examples repeats of each other."""
    n_ranked: int = 10
    """Tokens in each logit table, and neighbours in each neighbour table."""
    coactive_tokens: int = 131_072
    """Co-activation is computed on at most this many counted tokens, those with the smallest hash."""
    coactive_min_count: int = 3
    """Tokens on which both must fire before a pair is listed."""
    reconstruction_groups: int = 8
    """Groups of 32 contexts, evenly spread, on every fourth token of which the reconstruction is measured."""
    final_norm_gain: bool = True
    """Logit effects include the gain of the model's final norm."""
    n_bins: int = HISTOGRAM_BINS
    n_intervals: int = N_INTERVALS
    batch_rows: int = BATCH_ROWS
    algorithm: int = ALGORITHM_VERSION

    def __post_init__(self) -> None:
        fixed = {
            "n_bins": HISTOGRAM_BINS,
            "n_intervals": N_INTERVALS,
            "batch_rows": BATCH_ROWS,
            "algorithm": ALGORITHM_VERSION,
        }
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise BadSettings(
                    name, f"this version of the algorithm has {value}, not {getattr(self, name)}"
                )
        for names, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
            for name in names:
                if getattr(self, name) < least:
                    raise BadSettings(name, f"at least {least} is needed, not {getattr(self, name)}")
        if self.context_length > 1 << 16:
            raise BadSettings("context_length", f"at most 65536 is possible, not {self.context_length}")
        if self.norm_multiple is not None and not self.norm_multiple > 0:
            raise BadSettings("norm_multiple", f"a positive number is needed, not {self.norm_multiple}")

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values; `from_json` undoes it."""
        values = {name: getattr(self, name) for name in _NAMES}
        return {name: list(value) if name in _TUPLES else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DashboardSettings:
        """Read what `to_json` wrote.

        Raises:
            BadSettings: a name is unknown, or a value is impossible.
        """
        unknown = sorted(set(values) - set(_NAMES))
        if unknown:
            raise BadSettings(unknown[0], "no such setting")
        typed: dict[str, Any] = {
            name: tuple(value) if name in _TUPLES else value for name, value in values.items()
        }
        return cls(**typed)

    def digest(self) -> str:
        """SHA-256 of the settings."""
        return digest_of([json.dumps(self.to_json(), sort_keys=True).encode()])


_NAMES = tuple(field.name for field in dataclasses.fields(DashboardSettings))
