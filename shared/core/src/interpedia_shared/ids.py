"""Ids on the wire and on disk, as value objects that refuse nonsense."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

SLUG_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,127}$"
_SLUG = re.compile(SLUG_PATTERN)

Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN)]
"""An id of a model, SAE, corpus or release: lower case, digits, dots, dashes, underscores; at most 128."""


@dataclass(frozen=True, slots=True, order=True)
class FeatureRef:
    """The one name of a feature: `model/sae/index`."""

    model: str
    sae: str
    index: int

    def __str__(self) -> str:
        return f"{self.model}/{self.sae}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> FeatureRef:
        """Read `model/sae/index`.

        Raises:
            ValueError: not three parts, not slugs, or the index is no plain number (so never -1).
        """
        parts = text.split("/")
        if len(parts) != 3 or not _SLUG.match(parts[0]) or not _SLUG.match(parts[1]):
            raise ValueError(f"'{text}' is not model/sae/index")
        if not parts[2].isascii() or not parts[2].isdigit() or len(parts[2]) > 9:
            raise ValueError(f"'{parts[2]}' in '{text}' is not a feature index")
        return cls(parts[0], parts[1], int(parts[2]))
