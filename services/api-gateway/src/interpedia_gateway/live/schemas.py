"""Shapes of the live routes that only the gateway has."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from interpedia_shared.contracts.live.capabilities import LiveLimits
from interpedia_shared.jobs import JobOut
from interpedia_shared.schemas import Schema


class ServedModel(Schema):
    """A model with inference hosts, ready or not."""

    model: str
    ready: bool = Field(description="Whether a request would be taken now.")
    hosts: dict[str, int] = Field(description="How many are waiting, loading, ready, failed or silent.")
    queue_depth: int = Field(description="Requests queued on its ready hosts, a moment ago.")
    dtype: str | None = None
    device: str | None = None
    limits: LiveLimits | None = Field(default=None, description="Of the least busy host.")
    detail: str | None = Field(default=None, description="Why it is not ready.")


class SharedSteering(Schema):
    """A steering run that somebody shared."""

    id: str
    model: str
    created_at: datetime
    request: dict[str, Any] = Field(description="As for POST /v1/steer, defaults filled in: send it again.")
    answer: dict[str, Any] = Field(description="As it was then; NUL characters are shown as U+2400.")


class SearchAccepted(Schema):
    """The job that searches."""

    job: JobOut
