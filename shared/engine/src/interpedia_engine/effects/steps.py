"""Long computations in small steps, so that whoever runs them can interleave, show progress and stop."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from interpedia_engine.errors import OutOfRange

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """What a computation says between two steps."""

    done: int
    total: int
    phase: str = ""
    """What is being done, in a word or two."""


Steps = Generator[Progress, None, T]
"""Yields between steps and returns the result. No hook, patch or gradient mode is left in place at a yield,
so that other work may run on the same model between two steps; `close()` ends it there."""


@dataclass(frozen=True)
class Pace:
    """How much one step may do.

    The default is about 0.2 s of SmolLM2-135M on one CPU thread. Results do not depend on it beyond rounding.
    """

    block_tokens: int = 2048
    """Tokens × transformer blocks of a forward pass; a backward pass counts twice."""

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise OutOfRange("block_tokens", f"at least 1 is needed, not {self.block_tokens}")

    def rows(self, *, positions: int, blocks: int, cost: int = 1) -> int:
        """Return how many rows of `positions` tokens through `blocks` blocks fit in a step; at least one."""
        return max(1, self.block_tokens // max(1, positions * max(1, blocks) * cost))


def finish(steps: Steps[T]) -> T:
    """Run a computation to its end and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
