"""What a job consists of, before it is rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interpedia_shared.db.base import JSON


@dataclass(frozen=True)
class TaskSpec:
    """One resumable chunk of a job.

    Args:
        kind: which handler runs it.
        stage: index into the job's stages; a stage starts when all of the one before is done.
        ordinal: its number within the stage.
        params: what the handler needs, as JSON.
        weight: units of work, the same for all tasks of a job, so that progress adds up.
        max_attempts: how many starts, crashes included, before it is dead.
        queue: the workers it is for.
    """

    kind: str
    stage: int
    ordinal: int
    params: JSON
    weight: int = 1
    max_attempts: int = 3
    queue: str = "ingest"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("stage", self.stage, 0),
            ("ordinal", self.ordinal, 0),
            ("weight", self.weight, 1),
            ("max_attempts", self.max_attempts, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: {value} of task '{self.kind}' is below {least}")


def check_plan(stages: Sequence[str], tasks: Sequence[TaskSpec]) -> None:
    """Refuse a job that could never end.

    Raises:
        ValueError: no tasks, a stage named twice, a stage index outside the stages, an ordinal used twice.
    """
    if not tasks:
        raise ValueError("tasks: a job needs at least one")
    if len(set(stages)) != len(stages):
        raise ValueError(f"stages: a name occurs twice in {list(stages)}")
    seen: set[tuple[int, int]] = set()
    for task in tasks:
        if task.stage >= len(stages):
            raise ValueError(f"stage: {task.stage} of task '{task.kind}' is outside 0..{len(stages) - 1}")
        if (task.stage, task.ordinal) in seen:
            raise ValueError(f"ordinal: {task.ordinal} occurs twice in stage {task.stage}")
        seen.add((task.stage, task.ordinal))
