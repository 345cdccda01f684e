"""Explanations that lack a vector of the present model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import ColumnElement, bindparam, func, or_, select, update

from interpedia_shared.db.models import Explanation
from interpedia_shared.db.models.explanation import EMBEDDING_WIDTH
from interpedia_shared.db.session import ReadSession, WriteSession


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which explanations a task is about: all, a range of ids, those of some runs."""

    first: int = 0
    last: int | None = None
    run_ids: tuple[uuid.UUID, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read the parameters of a task.

        Raises:
            ValueError: an id is none.
        """
        runs = tuple(uuid.UUID(run) for run in params.get("run_ids", ()))
        return cls(int(params.get("first", 0)), params.get("last"), runs)

    def conditions(self, model: str) -> list[ColumnElement[bool]]:
        """Rows among them without a vector of this model."""
        found: list[ColumnElement[bool]] = [
            Explanation.id >= self.first,
            or_(Explanation.embedding_model.is_(None), Explanation.embedding_model != model),
        ]
        if self.last is not None:
            found.append(Explanation.id <= self.last)
        if self.run_ids:
            found.append(Explanation.run_id.in_(self.run_ids))
        return found


async def count_left(session: ReadSession, wanted: Wanted, model: str) -> int:
    """How many are to be done."""
    return await session.scalar(select(func.count()).where(*wanted.conditions(model))) or 0


async def next_texts(
    session: ReadSession, wanted: Wanted, model: str, *, after: int, limit: int
) -> list[tuple[int, str]]:
    """Ids and texts of the next rows behind id `after`."""
    statement = (
        select(Explanation.id, Explanation.text)
        .where(*wanted.conditions(model), Explanation.id > after)
        .order_by(Explanation.id)
        .limit(limit)
    )
    return [(number, text) for number, text in await session.execute(statement)]


async def store_vectors(
    session: WriteSession, rows: Sequence[tuple[int, str]], vectors: NDArray[np.float32], model: str
) -> None:
    """Write vectors of texts that are still the same; shape [len(rows), 384]."""
    table = Explanation.__table__
    statement = (
        update(table)  # pyright: ignore[reportArgumentType]
        .where(table.c.id == bindparam("row_id"), table.c.text == bindparam("row_text"))
        .values(embedding=bindparam("vector", type_=HALFVEC(EMBEDDING_WIDTH)), embedding_model=model)
    )
    values = [
        {"row_id": number, "row_text": text, "vector": vector}
        for (number, text), vector in zip(rows, vectors.tolist(), strict=True)
    ]
    await session.execute(statement, values)
