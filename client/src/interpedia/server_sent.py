"""Reading a text/event-stream.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message of the stream."""

    data: str
    event: str = "message"
    id: str | None = None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in `lines`; comments (sent to keep the line open) and retry hints are skipped."""
    data: list[str] = []
    event, last_id = "message", None
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Message("\n".join(data), event, last_id)
            data, event = [], "message"
        elif name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id":
            last_id = value
