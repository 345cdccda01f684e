"""What a job says of itself while its tasks run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interpedia_autointerp.orders import ledger
from interpedia_shared.db.models import Job
from interpedia_shared.db.session import Database
from tests.support.factories import make_account


async def test_what_is_counted_while_the_database_answers_is_told_the_next_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    async with database.write() as session:
        account_id, _ = await make_account(session)
        job = Job(kind="explain", state="running", account_id=account_id, params={}, stages=["explain"])
        session.add(job)
    context: Any = SimpleNamespace(database=database, job_id=job.id, ordinal=0)
    books = ledger.Ledger(context, "explain")

    async def meanwhile(*_: object) -> None:
        books.count("explained")

    books.count("explained")
    monkeypatch.setattr(ledger, "read_budget", meanwhile)
    await books.tell(at_once=True)
    monkeypatch.undo()
    await books.tell(at_once=True)
    async with database.read() as session:
        told = await session.get_one(Job, job.id)
        parts = await ledger.last_parts(session, job.id, "explain")
    assert told.result is not None
    assert told.result["counts"] == {"explained": 2}
    assert [part["counts"] for part in parts] == [{"explained": 2}]
