"""What a build runs: one model, and the SAEs that share its forward pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interpedia_engine.hooks import Hook
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.saes.base import SAE
from interpedia_ingest.dashboards.errors import BadSettings
from interpedia_ingest.dashboards.settings import DashboardSettings

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """One SAE of a build."""

    name: str
    """Stem of its spill files, unique in the build."""
    sae: SAE
    hook_in: Hook
    hook_out: Hook
    """Where the reconstruction belongs; equal to `hook_in` for all but transcoders."""
    weights: str = ""
    """Digest of the weights; spills of other weights are refused by the reduction."""

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.name):
            raise BadSettings("name", f"{self.name!r} cannot name a file")


@dataclass(frozen=True, slots=True)
class Build:
    """One model, the SAEs that share its forward pass, and the settings."""

    model: LanguageModel
    targets: Sequence[Target]
    settings: DashboardSettings

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if not names:
            raise BadSettings("targets", "at least one SAE is needed")
        if len(set(names)) != len(names):
            raise BadSettings("targets", "two SAEs have the same name")

    @property
    def hooks(self) -> list[Hook]:
        """All hooks that the forward pass must give, each once."""
        return list(
            dict.fromkeys(hook for target in self.targets for hook in (target.hook_in, target.hook_out))
        )
