"""`GET /v1/capabilities` of an inference host."""

from __future__ import annotations

from pydantic import Field

from interpedia_shared.schemas import Schema


class LiveLimits(Schema):
    """What one request may ask for."""

    max_tokens_per_text: int
    max_new_tokens: int
    max_batch_tokens: int
    max_queue: int
    deadline_s: float


class Capabilities(Schema):
    """What this host holds and takes."""

    model: str | None
    state: str = Field(description="loading, ready or failed")
    dtype: str
    device: str
    routes: list[str]
    limits: LiveLimits
    saes_loaded: list[str]
    queue_depth: int
    detail: str | None = Field(default=None, description="Why it is not ready.")
