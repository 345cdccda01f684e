"""Tokens and rules in words, for texts that people read and search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NAMED = {
    "\n": "line break",
    "\n\n": "blank line",
    "\t": "tab",
    " ": "space",
    "": "nothing",
    "\r\n": "line break",
}
_MAX_SHOWN = 40


def shown(piece: str) -> str:
    """A token in quotes, without its spaces; white space by name."""
    if not piece.strip():
        return f"a {_NAMED.get(piece, 'run of white space')}"
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in piece.strip())
    return f"“{text[:_MAX_SHOWN]}”"


def listed(pieces: Iterable[str], most: int = 8) -> str:
    """Tokens as a list for reading; those that read alike once."""
    names = list(dict.fromkeys(shown(piece) for piece in pieces))[:most]
    return joined(names)


def joined(names: Sequence[str]) -> str:
    """a, b or c."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def shortened(text: str, most: int) -> str:
    """The text, cut at a space where that is not far, with an ellipsis."""
    if len(text) <= most:
        return text
    cut = text[: most - 1]
    at = cut.rfind(" ")
    return (cut[:at] if at > most // 2 else cut).rstrip(" ,;") + "…"
