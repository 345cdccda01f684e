"""Table `explanation_task`. SQL only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from interpedia_autointerp.material.task import Task
from interpedia_shared.db.models import ExplanationTask
from interpedia_shared.db.session import ReadSession, WriteSession


async def verified_tasks(
    session: ReadSession | WriteSession, version_id: int, indices: Sequence[int]
) -> dict[int, Task]:
    """The first stored task of each feature whose near misses were checked on the model."""
    rows = await session.execute(
        select(ExplanationTask.feature_idx, ExplanationTask.material)
        .where(
            ExplanationTask.sae_version_id == version_id,
            ExplanationTask.feature_idx.in_(indices),
            ExplanationTask.material["is_verified"].as_boolean(),
        )
        .order_by(ExplanationTask.id.desc())
    )
    return {index: Task.from_json(material) for index, material in rows}


async def keep(session: WriteSession, version_id: int, tasks: Sequence[Task]) -> None:
    """Store tasks; those that are there already stay as they are."""
    if tasks:
        await session.execute(
            insert(ExplanationTask)
            .values(
                [
                    {
                        "sae_version_id": version_id,
                        "feature_idx": task.feature.index,
                        "split_hash": task.split_hash,
                        "material": task.to_json(),
                    }
                    for task in tasks
                ]
            )
            .on_conflict_do_nothing(index_elements=[ExplanationTask.split_hash])
        )


async def by_split_hash(session: ReadSession, split_hash: str) -> Task | None:
    """The task with this hash."""
    material = await session.scalar(
        select(ExplanationTask.material).where(ExplanationTask.split_hash == split_hash)
    )
    return None if material is None else Task.from_json(material)
