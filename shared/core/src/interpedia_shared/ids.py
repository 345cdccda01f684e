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

_MAX_INDEX = 2**63 - 1
_MAX_DIGITS = 18


def plain_index(text: str) -> int:
    """Read an index that is digits only; past 64 bits it is as good as their end, which no SAE has either.

    Raises:
        ValueError: something else than ASCII digits, or nothing.
    """
    if not text.isascii() or not text.isdigit():
        raise ValueError("a feature index is a whole number")
    # cut short before it is converted: Python refuses thousands of digits, and JSON writers more than 64 bits
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else _MAX_INDEX


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
        try:
            return cls(parts[0], parts[1], plain_index(parts[2]))
        except ValueError:
            raise ValueError(f"'{parts[2]}' in '{text}' is not a feature index") from None
