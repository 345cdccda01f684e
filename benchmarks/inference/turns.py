"""Measuring by turns: whatever else the machine does meanwhile slows down all sides alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """What one piece of work took."""

    wall_s: float
    cpu_s: float


Side = Callable[[int], Spent]
"""Does the work of one round, given its number."""


def by_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Spent]]:
    """Let each side do every round's work; who is first changes from round to round."""
    names = list(sides)
    spent: dict[str, list[Spent]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            spent[name].append(sides[name](number))
    return spent


def medians(spent: Mapping[str, Sequence[Spent]]) -> dict[str, dict[str, float]]:
    """Of each side: median wall seconds, mean CPU seconds (the kernel counts them in coarse steps)."""
    return {
        name: {
            "wall_s": statistics.median(one.wall_s for one in values),
            "cpu_s": statistics.fmean(one.cpu_s for one in values),
        }
        for name, values in spent.items()
    }


def compared(spent: Mapping[str, Sequence[Spent]], ours: str, other: str) -> dict[str, Any]:
    """Medians of all sides, and how many times more we take than another side, on both clocks."""
    middle = medians(spent)
    return {
        "rounds": len(spent[ours]),
        **middle,
        "ratio": middle[ours]["wall_s"] / middle[other]["wall_s"],
        "ratio_cpu": middle[ours]["cpu_s"] / middle[other]["cpu_s"],
    }
