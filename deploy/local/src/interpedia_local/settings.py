"""What the launcher takes from the environment, and what it hands on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class LocalSettings:
    """A database of one's own (`INTERPEDIA_DATABASE__URL`), `INTERPEDIA_API_KEY`, and what children see."""

    database_url: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    inherited: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        """Reads this process's environment."""
        return cls(
            database_url=os.environ.get("INTERPEDIA_DATABASE__URL") or None,
            api_key=os.environ.get("INTERPEDIA_API_KEY") or None,
            inherited=dict(os.environ),
        )
