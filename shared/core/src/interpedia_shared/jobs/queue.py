"""Our side of the queue library: entries that carry task ids, always inside the caller's transaction.

A task has at most one entry, by its dedupe key. Lock order everywhere: job, then task, then entry.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job as QueueEntry
from pgqueuer.domain.settings import db_settings
from pgqueuer.domain.types import JobId, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from interpedia_shared.db.models import JobTask
from interpedia_shared.db.session import WriteSession

LIVE = "status IN ('queued', 'picked')"


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue entry that this worker holds."""

    id: int
    task_id: int


def channel() -> str:
    """Where Postgres tells that entries were added."""
    return db_settings().channel


def dedupe_key(task_id: int) -> str:
    """What makes a second entry of the same task impossible."""
    return f"task:{task_id}"


async def enqueue(
    session: WriteSession, tasks: Sequence[JobTask], *, delay: timedelta = timedelta(0)
) -> None:
    """Add an entry for each task that has none; workers see it once the transaction commits."""
    if not tasks:
        return
    queries = await _queries(session)
    count = len(tasks)
    delays: list[timedelta | None] = [delay] * count
    await queries.enqueue(
        [task.queue for task in tasks],
        [str(task.id).encode() for task in tasks],
        [0] * count,
        delays,
        [dedupe_key(task.id) for task in tasks],
        on_conflict="skip",
    )


async def take(
    session: WriteSession, queue: str, holder: uuid.UUID, *, stale_after: timedelta
) -> Entry | None:
    """Take the oldest entry that is due, or one whose holder stopped its heartbeat.

    Commit at once: until then nobody else sees it, and nothing else may be locked in this transaction.
    """
    queries = await _queries(session)
    found: list[QueueEntry] = await queries.dequeue(
        batch_size=1,
        entrypoints={QueueEntrypoint(queue): EntrypointExecutionParameter(concurrency_limit=0)},
        queue_manager_id=QueueManagerId(holder),
        global_concurrency_limit=None,
        heartbeat_timeout=stale_after,
    )
    return Entry(found[0].id, _task_id(found[0])) if found else None


async def beat(session: WriteSession, entries: Sequence[Entry]) -> None:
    """Keep entries from being taken by others."""
    queries = await _queries(session)
    await queries.update_heartbeat([JobId(entry.id) for entry in entries])


async def drop(session: WriteSession, task_ids: Sequence[int]) -> None:
    """Remove the entries of these tasks."""
    await session.execute(
        text(
            f"DELETE FROM {db_settings().qualified.queue_table} WHERE dedupe_key = ANY(:keys) AND {LIVE}"
        ).bindparams(bindparam("keys", type_=ARRAY(Text))),
        {"keys": [dedupe_key(task_id) for task_id in task_ids]},
    )


async def remove(session: WriteSession, entry: Entry) -> None:
    """Remove one entry, whatever it is for."""
    await session.execute(
        text(f"DELETE FROM {db_settings().qualified.queue_table} WHERE id = :id"), {"id": entry.id}
    )


async def postpone(session: WriteSession, task: JobTask, delay: timedelta) -> None:
    """Put the task's entry back for later."""
    await drop(session, [task.id])
    await enqueue(session, [task], delay=delay)


async def entered(session: WriteSession, task_ids: Sequence[int]) -> set[int]:
    """Those of the tasks that have an entry."""
    keys = {dedupe_key(task_id): task_id for task_id in task_ids}
    found = await session.scalars(
        text(
            f"SELECT dedupe_key FROM {db_settings().qualified.queue_table}"
            f" WHERE dedupe_key = ANY(:keys) AND {LIVE}"
        ).bindparams(bindparam("keys", type_=ARRAY(Text))),
        {"keys": list(keys)},
    )
    return {keys[key] for key in found}


async def purge_log(session: WriteSession, *, older_than: timedelta) -> None:
    """Delete the library's own record of entries, which it only ever adds to. Ours is `job_event`."""
    await session.execute(
        text(
            f"DELETE FROM {db_settings().qualified.queue_table_log}"
            " WHERE created < now() - make_interval(secs => :seconds)"
        ),
        {"seconds": older_than.total_seconds()},
    )


def _task_id(entry: QueueEntry) -> int:
    """Zero, which is no task's id, when the entry was not made by us."""
    payload = entry.payload or b""
    return int(payload) if payload.isdigit() else 0


async def _queries(session: WriteSession) -> Queries:
    """The library on the session's own connection, inside its transaction."""
    connection = await session.connection()
    # SQLAlchemy begins the transaction with its first statement; the library's must not come before it.
    await connection.execute(text("SELECT 1"))
    raw = await connection.get_raw_connection()
    return Queries(AsyncpgDriver(raw.driver_connection))  # pyright: ignore[reportArgumentType]
