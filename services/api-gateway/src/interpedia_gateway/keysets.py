"""Keyset pages: what comes back in a cursor is checked value by value, because anybody can write one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel

from interpedia_shared.pagination import Cursor, Limit, make_cursor, read_cursor
from interpedia_shared.problems import BadCursor
from interpedia_shared.schemas import Page

T = TypeVar("T", bound=BaseModel)
Kind = type[int] | type[float] | type[str]
_INT32 = 2**31


class Paging:
    """How much to list, and from where."""

    def __init__(self, limit: int = 50, cursor: str | None = None) -> None:
        self.limit = limit
        self.cursor = cursor

    def key(self, scope: Mapping[str, Any], kinds: Sequence[Kind]) -> list[Any] | None:
        """The last row's sort key, or None on the first page.

        Raises:
            BadCursor: no cursor of this route and order, or its values are of the wrong kind.
        """
        if self.cursor is None:
            return None
        key = read_cursor(self.cursor, scope, len(kinds))
        if not all(_is_of(value, kind) for value, kind in zip(key, kinds, strict=True)):
            detail = "not a cursor of this API"
            raise BadCursor(
                f"cursor: {detail}", extensions={"errors": [{"field": "cursor", "detail": detail}]}
            )
        return key

    def page(self, items: list[T], scope: Mapping[str, Any], key: Callable[[T], list[Any]]) -> Page[T]:
        """Cut a list that was read with one item too many."""
        kept = items[: self.limit]
        more = len(items) > self.limit
        return Page(items=kept, next_cursor=make_cursor(key(kept[-1]), scope) if more else None)


def _is_of(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool):
        return False
    if kind is str:
        return isinstance(value, str) and len(value) <= 200 and "\x00" not in value and _encodes(value)
    if kind is int:
        return isinstance(value, int) and -_INT32 <= value < _INT32
    return isinstance(value, (int, float))


def _encodes(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


async def paging_of(limit: Limit = 50, cursor: Cursor = None) -> Paging:
    """The page a request asks for (a dependency; async, so that it costs no thread)."""
    return Paging(limit, cursor)


ThePaging = Annotated[Paging, Depends(paging_of)]
