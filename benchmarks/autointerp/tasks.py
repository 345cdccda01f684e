"""The frozen material: windows of real features with splits, among them near misses."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from interpedia_autointerp.material import Task, Window
from interpedia_autointerp.material.window import Split
from interpedia_shared.ids import FeatureRef

FROZEN = Path(__file__).parent / "tasks.jsonl.xz"
STRATA = (("explain", True, 40), ("explain", False, 0), ("test", True, 50), ("test", False, 50))
"""Windows that the peer's 41,000 tokens are for: 40 excerpts to explain, 50 + 50 for each of two scorers."""


def read_tasks(path: Path = FROZEN) -> list[Task]:
    """All tasks of a file, in its order."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [Task.from_json(json.loads(line)) for line in lines]


def write_tasks(tasks: Sequence[Task], path: Path = FROZEN) -> None:
    """One task a line, by feature; the same tasks make the same bytes."""
    ordered = sorted(tasks, key=lambda task: (task.feature.sae, task.feature.index))
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as file:
        for task in ordered:
            file.write(json.dumps(task.to_json(), ensure_ascii=False, separators=(",", ":")) + "\n")


def of_strata(tasks: Sequence[Task]) -> Task:
    """One made-up task with the peer's number of windows, taken from real ones: for counting tokens only."""
    windows: list[Window] = []
    for split, fires, count in STRATA:
        windows += _windows(tasks, split, fires, count)  # type: ignore[arg-type]
    renamed = tuple(replace(window, id=f"w{at}", document=at) for at, window in enumerate(windows))
    return replace(tasks[0], feature=FeatureRef("any", "any", 0), windows=renamed)


def _windows(tasks: Sequence[Task], split: Split, fires: bool, count: int) -> list[Window]:
    found = [window for task in tasks for window in task.of(split, fires=fires)]
    return list(islice(cycle(found), count)) if found else []
