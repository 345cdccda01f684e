"""Keyset cursors: opaque, bound to the route's filters and order, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import Query

from interpedia_shared.problems import BadCursor

MAX_LIMIT = 500
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items in the answer.")]
Cursor = Annotated[str | None, Query(max_length=2048, description="`next_cursor` of the page before.")]


def _fingerprint(scope: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(scope), option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[
        :12
    ]


def make_cursor(key: list[Any], scope: Mapping[str, Any]) -> str:
    """Pack the last row's sort key; `scope` is the route with its filters and order."""
    payload = orjson.dumps([_fingerprint(scope), key])
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


def read_cursor(cursor: str, scope: Mapping[str, Any], size: int) -> list[Any]:
    """Unpack a cursor of `size` values.

    Raises:
        BadCursor: it is no cursor, or one of another route, filter or order.
    """
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise BadCursor("cursor: not a cursor of this API", extensions=_errors("not a cursor")) from error
    good = isinstance(payload, list) and len(payload) == 2 and isinstance(payload[1], list)
    if not good or len(payload[1]) != size:
        raise BadCursor("cursor: not a cursor of this API", extensions=_errors("not a cursor"))
    if payload[0] != _fingerprint(scope):
        detail = "made with other filters or another order; start again without it"
        raise BadCursor(f"cursor: {detail}", extensions=_errors(detail))
    key: list[Any] = payload[1]
    return key


def _errors(detail: str) -> dict[str, Any]:
    return {"errors": [{"field": "cursor", "detail": detail}]}
