"""Reading lists page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from interpedia.schemas import Page, Resource
from interpedia.transport import Parameters, Request, Transport

Item = TypeVar("Item", bound=Resource)


def items(transport: Transport, path: str, parameters: Parameters, shape: type[Item]) -> Iterator[Item]:
    """All items of a list; the next page is fetched when the caller gets there."""
    cursor: str | None = None
    while True:
        request = Request("GET", path, parameters={**parameters, "cursor": cursor})
        page = transport.read(request, Page[shape])
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
