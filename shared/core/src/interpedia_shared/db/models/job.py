"""Long work as the API shows it. These rows are the truth; the queue only carries task ids to workers."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, SmallInteger, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import JSON, Base, BigId, CreatedAt


class Job(CreatedAt, Base):
    """One piece of long work.

    `state`: queued, running, succeeded, failed, cancelled. `done` and `total` are units of work (see the
    kind), not tasks, so that progress moves within a task too.
    """

    __tablename__ = "job"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "state"))

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    params: Mapped[JSON]
    stages: Mapped[list[str]] = mapped_column(ARRAY(Text))
    stage: Mapped[str | None] = mapped_column(Text)
    done: Mapped[int] = mapped_column(BigInteger, server_default="0")
    total: Mapped[int] = mapped_column(BigInteger, server_default="0")
    result: Mapped[JSON | None]
    error: Mapped[JSON | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default="false")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobTask(BigId, Base):
    """One resumable chunk of a job.

    `state`: waiting (an earlier stage is not done), queued, running, done, dead, cancelled. `attempt` counts
    starts, crashes included; past `max_attempts` the task is dead and keeps its last error. `queue` names the
    workers it is for. While it runs, (`worker`, `attempt`) is the fence of everything its worker writes, and
    `heartbeat_at` says when that worker was last known to be alive.
    """

    __tablename__ = "job_task"
    __table_args__ = (UniqueConstraint("job_id", "stage", "ordinal"), Index(None, "job_id", "state"))

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text, server_default="ingest")
    stage: Mapped[int] = mapped_column(SmallInteger)
    ordinal: Mapped[int]
    params: Mapped[JSON]
    state: Mapped[str] = mapped_column(Text)
    weight: Mapped[int] = mapped_column(BigInteger)
    progress: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default="3")
    worker: Mapped[str | None] = mapped_column(Text)
    heartbeat_at: Mapped[datetime | None]
    error: Mapped[JSON | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEvent(BigId, Base):
    """What happened to a job, in order; the API streams these and resumes by their ids."""

    __tablename__ = "job_event"
    __table_args__ = (Index(None, "job_id", "id"),)

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    type: Mapped[str] = mapped_column(Text)
    data: Mapped[JSON]
