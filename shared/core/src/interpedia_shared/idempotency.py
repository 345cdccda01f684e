"""The same POST twice has one effect and one answer, when it carries an `Idempotency-Key`.

The key's row is inserted in the transaction of the effect. A duplicate that runs at the same time waits on
the unique index until that transaction ends: it then finds the answer, or, after a rollback, does the work.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Header, Response
from pydantic import BaseModel
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from interpedia_shared.auth import Caller
from interpedia_shared.db.models import IdempotencyKey
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.problems import IdempotencyMismatch

KEPT_FOR = timedelta(hours=24)

OnceKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key with the same body within a day: the same answer, and no second effect.",
    ),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a POST is answered with."""

    status: int
    body: bytes

    @classmethod
    def of(cls, status: int, body: BaseModel) -> Answer:
        """Render a body once, so that a replay has the same bytes."""
        return cls(status, body.model_dump_json().encode())

    def response(self) -> Response:
        """The answer as HTTP."""
        return Response(self.body, self.status, media_type="application/json")


class Once:
    """One POST of one caller."""

    def __init__(self, caller: Caller, route: str, key: str | None, body: BaseModel) -> None:
        self._account_id = caller.account_id
        self._route = route
        self._key = key
        self._sha256 = hashlib.sha256(body.model_dump_json().encode()).digest()

    async def replay(self, database: Database) -> Answer | None:
        """The answer that was given before; None when this POST is new.

        Raises:
            IdempotencyMismatch: the key came with another body.
        """
        if self._key is None:
            return None
        async with database.read() as session:
            row = await session.scalar(self._select())
        return None if row is None else self._check(row)

    async def claim(self, session: WriteSession) -> Answer | None:
        """Reserve the key for this transaction; or the answer of whoever was faster.

        Raises:
            IdempotencyMismatch: the key came with another body.
        """
        if self._key is None:
            return None
        claimed = await session.scalar(
            insert(IdempotencyKey)
            .values(account_id=self._account_id, route=self._route, key=self._key, body_sha256=self._sha256)
            .on_conflict_do_nothing()
            .returning(IdempotencyKey.id)
        )
        if claimed is not None:
            return None
        return self._check((await session.execute(self._select())).scalar_one())

    async def keep(self, session: WriteSession, answer: Answer) -> Answer:
        """Store the answer beside the effect."""
        if self._key is not None:
            await session.execute(
                update(IdempotencyKey)
                .where(
                    IdempotencyKey.account_id == self._account_id,
                    IdempotencyKey.route == self._route,
                    IdempotencyKey.key == self._key,
                )
                .values(status=answer.status, response=answer.body)
            )
        return answer

    def _select(self):  # noqa: ANN202  (a select of one entity; its type takes a line to say)
        return select(IdempotencyKey).where(
            IdempotencyKey.account_id == self._account_id,
            IdempotencyKey.route == self._route,
            IdempotencyKey.key == self._key,
        )

    def _check(self, row: IdempotencyKey) -> Answer:
        if row.body_sha256 != self._sha256 or row.status is None or row.response is None:
            raise IdempotencyMismatch(
                f"Idempotency-Key '{self._key}' was used for another body of {self._route}. Take a new key.",
                extensions={"key": self._key},
            )
        return Answer(row.status, row.response)


async def forget_old_keys(session: WriteSession) -> None:
    """Drop answers that no retry will ask for any more."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEPT_FOR))
