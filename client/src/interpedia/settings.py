"""What the command and `Client.from_environment` take from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Self

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Settings:
    """Where the server is and which key to show it."""

    url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        """Reads `INTERPEDIA_URL` and `INTERPEDIA_API_KEY`."""
        return cls(
            url=os.environ.get("INTERPEDIA_URL") or DEFAULT_URL,
            api_key=os.environ.get("INTERPEDIA_API_KEY") or None,
        )
