"""Jobs on the wire."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from interpedia_shared.schemas import Schema

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
EventType = Literal[
    "queued",
    "started",
    "stage",
    "progress",
    "part",
    "task_failed",
    "task_dead",
    "succeeded",
    "failed",
    "cancelled",
    "retried",
]
JOB_ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class TaskCounts(Schema):
    """How many tasks of a job are in each state."""

    waiting: int = Field(default=0, description="an earlier stage is not done")
    queued: int = 0
    running: int = 0
    done: int = 0
    dead: int = Field(
        default=0, description="given up after the last attempt, or at once when it was hopeless"
    )
    cancelled: int = 0


class JobOut(Schema):
    """Long work: its state, how far it is, and how it ended."""

    id: uuid.UUID
    kind: str = Field(examples=["build_dashboards"])
    state: JobState
    stage: str | None = Field(examples=["reduce"])
    stages: list[str] = Field(examples=[["shard", "reduce", "publish"]])
    done: int = Field(description="units of work done; between 0 and `total`")
    total: int = Field(description="units of work; what a unit is depends on `kind`")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested: bool
    result: dict[str, Any] | None
    error: dict[str, Any] | None = Field(description="type, title, detail of the first task that died")
    params: dict[str, Any]
    tasks: TaskCounts


class JobEventOut(Schema):
    """Something that happened to a job. Ids grow; reading goes on after the last one seen."""

    id: int
    at: datetime
    type: EventType
    data: dict[str, Any]
