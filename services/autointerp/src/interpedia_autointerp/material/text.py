"""Token bytes to text pieces, and texts as data in a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from interpedia_shared.tokens import show_bytes

MARKS: tuple[tuple[str, str], ...] = (
    ("«", "»"),
    ("⟦", "⟧"),
    ("‹", "›"),
    ("<<", ">>"),
    ("{{", "}}"),
    ("⁅", "⁆"),
)
"""Pairs to mark tokens with; the first is used that no text holds."""

# What reads differently from how it is written: controls, joiners, direction marks, line and paragraph ends.
_HIDDEN = re.compile(
    "[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def pieces_of(tokens: Sequence[bytes]) -> list[str]:
    """Tokens as text, which joined is the text of all of them.

    A character that is split over tokens belongs to the token that completes it; the others are empty.
    Bytes that are no character appear as `<0xE2>` where they are.
    """
    whole = b"".join(tokens).decode("utf-8", errors="surrogateescape")
    ends: list[int] = []
    length = 0
    for token in tokens:
        length += len(token)
        ends.append(length)
    pieces: list[list[str]] = [[] for _ in tokens]
    at = owner = 0
    for character in whole:
        raw = character.encode("utf-8", errors="surrogateescape")
        at += len(raw)
        while ends[owner] < at:
            owner += 1
        pieces[owner].append(show_bytes(raw))
    return ["".join(parts) for parts in pieces]


def choose_marks(texts: Iterable[str]) -> tuple[str, str]:
    """Marks that occur in none of the texts; when all do, numbered ones that do not."""
    held = "\n".join(texts)
    for opening, closing in MARKS:
        if opening not in held and closing not in held:
            return opening, closing
    number = 1
    while f"[[{number}:" in held or f":{number}]]" in held:
        number += 1
    return f"[[{number}:", f":{number}]]"


def as_data(value: Any) -> str:
    """JSON for a prompt: every text in quotes, on one line, and nothing hidden in it.

    Reading it as JSON gives the same value back. Spaces between its parts would take four tokens a window.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _HIDDEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
