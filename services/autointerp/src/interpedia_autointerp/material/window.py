"""A piece of a context with the feature's activations on it: what explainers read and judges judge."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

Split = Literal["explain", "validate", "test", "redteam"]
SPLITS: tuple[Split, ...] = ("explain", "validate", "test", "redteam")

Negative = Literal["random", "same_context", "same_token", "near", "neighbour", "edit"]
"""Why a silent window was chosen.

random        drawn uniformly
same_context  silent part of a context in which the feature fires elsewhere
same_token    holds a token on which the feature peaks elsewhere
near          its text is close in meaning to windows on which the feature fires
neighbour     another feature with a similar direction, or that often fires together with it, fires here
edit          a window on which the feature fires, with the token of its peak exchanged
"""
NEGATIVES: tuple[Negative, ...] = ("random", "same_context", "same_token", "near", "neighbour", "edit")
HARD: frozenset[str] = frozenset(NEGATIVES) - {"random"}


@dataclass(frozen=True, slots=True)
class Window:
    """Some consecutive tokens of a context.

    Attributes:
        id: unique in its task; says nothing about whether the feature fires.
        pieces: the tokens as text; joined they are the window's text exactly. A character that is split over
            tokens belongs to the token that completes it; bytes that are no character appear as `<0xE2>`.
        values: the feature's activation at each token, in the SAE's own scale; all 0 in a silent window.
        stratum: `interval k` of the peak (1 weakest to 5) where it fires, else the `Negative` kind.
        weight: how many windows of the population it stands for (firing ones: contexts; silent ones: a
            share of the silent). 0 when it was not drawn from the population.
        document: of the corpus; -1 for texts of no corpus.
        context, start: row of the corpus, and position of the first token in it, BOS counted.
        source: what it was made from, where `stratum` alone does not tell.
    """

    id: str
    pieces: tuple[str, ...]
    values: tuple[float, ...]
    split: Split
    stratum: str
    weight: float = 1.0
    document: int = -1
    context: int = -1
    start: int = 0
    token_ids: tuple[int, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.values) or not self.pieces:
            raise ValueError(f"window {self.id} has {len(self.pieces)} tokens and {len(self.values)} values")

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def fires(self) -> bool:
        """Whether the feature is active on any of the tokens."""
        return any(self.values)

    @property
    def max(self) -> float:
        """The largest activation by magnitude, with its sign."""
        return self.values[self.peak]

    @property
    def peak(self) -> int:
        """Position in the window of the largest activation; the first of equals."""
        return max(range(len(self.values)), key=lambda at: (abs(self.values[at]), -at))

    def active(self, share: float = 0.0) -> tuple[int, ...]:
        """Positions with more than `share` of the window's peak; of a silent window none."""
        least = share * abs(self.max)
        return tuple(at for at, value in enumerate(self.values) if abs(value) > least)

    def marked(self, positions: Collection[int], marks: tuple[str, str]) -> str:
        """The text with runs of these positions between the two marks."""
        parts: list[str] = []
        is_open = False
        for at, piece in enumerate(self.pieces):
            wanted = at in positions
            if wanted != is_open:
                parts.append(marks[0] if wanted else marks[1])
                is_open = wanted
            parts.append(piece)
        return "".join([*parts, marks[1]] if is_open else parts)

    def to_json(self) -> dict[str, Any]:
        """As it is stored in a task. Its values are plain: they need no copies, as `asdict` would make."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Window:
        """Read what `to_json` wrote."""
        lists: dict[str, Any] = {name: tuple(value[name]) for name in ("pieces", "values", "token_ids")}
        return cls(**{**value, **lists})


_FIELDS = tuple(field.name for field in fields(Window))
