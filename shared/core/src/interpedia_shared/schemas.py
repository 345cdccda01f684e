"""Base of all bodies on the wire, and the shapes that all routes share."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Schema(BaseModel):
    """An answer: snake_case JSON, built from rows or by name."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True, ser_json_inf_nan="null")


class Request(Schema):
    """A request body: an unknown field is an error, so that a typo is never silently ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_stored(cls, data: Any) -> Any:
        """Refuse what JSON may hold and neither Postgres nor UTF-8 can, before it becomes a crash."""
        if isinstance(data, dict):
            try:
                written = orjson.dumps(data, default=str)
            except orjson.JSONEncodeError as error:
                raise ValueError("holds half of a surrogate pair, or a number beyond 64 bits") from error
            if _NUL.search(written):
                raise ValueError("holds a NUL character")
        return data


class Page(Schema, Generic[T]):
    """A list: pass `next_cursor` back as `cursor` until it is null."""

    items: list[T]
    next_cursor: str | None = Field(default=None, description="null on the last page")


class FieldError(Schema):
    """One wrong field."""

    field: str = Field(examples=["#/hook"])
    detail: str
    limits: dict[str, Any] = Field(default_factory=dict)


class ProblemBody(Schema):
    """RFC 9457 problem details; further members depend on the type."""

    type: str = Field(examples=["https://interpedia.org/problems/sae-not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None
    errors: list[FieldError] | None = None
