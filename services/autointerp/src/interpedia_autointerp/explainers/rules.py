"""Explanations that can be run: from the tokens of a text to a predicted activation at each."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from typing_extensions import override

MAX_ENTRIES = 5_000
"""Most entries of a stored rule: a text of any size can be run against it."""


class Rule(Protocol):
    """Predicts in shares of the feature's maximum, 0 for silent."""

    def predict(self, pieces: Sequence[str]) -> tuple[float, ...]:
        """One value for each token."""
        ...

    def to_json(self) -> dict[str, Any]:
        """With its `kind`; `rule_from_json` undoes it."""
        ...


@dataclass(frozen=True, slots=True)
class TokenTable(Rule):
    """Each token has its value, whatever is around it."""

    values: Mapping[str, float]

    @override
    def predict(self, pieces: Sequence[str]) -> tuple[float, ...]:
        return tuple(self.values.get(piece, 0.0) for piece in pieces)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": "tokens", "values": dict(self.values)}


@dataclass(frozen=True, slots=True)
class TokenClasses(Rule):
    """A token fires when one of the tests holds for it; see `TESTS` for their names."""

    tests: tuple[tuple[str, str], ...]
    value: float = 1.0

    @override
    def predict(self, pieces: Sequence[str]) -> tuple[float, ...]:
        return tuple(
            self.value if any(passes(test, piece) for test in self.tests) else 0.0 for piece in pieces
        )

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": "classes", "tests": [list(test) for test in self.tests], "value": self.value}


@dataclass(frozen=True, slots=True)
class NGrams(Rule):
    """A token fires with the value of the longest entry that ends at it.

    Entries are of words as `word_of` has them, the last one the token itself.
    """

    entries: Mapping[tuple[str, ...], float]

    @override
    def predict(self, pieces: Sequence[str]) -> tuple[float, ...]:
        words = [word_of(piece) for piece in pieces]
        longest = max(map(len, self.entries), default=0)
        return tuple(self._at(words, end, longest) for end in range(1, len(words) + 1))

    def _at(self, words: list[str], end: int, longest: int) -> float:
        for length in range(min(longest, end), 0, -1):
            found = self.entries.get(tuple(words[end - length : end]))
            if found is not None:
                return found
        return 0.0

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": "ngrams", "entries": [[list(words), value] for words, value in self.entries.items()]}


@dataclass(frozen=True, slots=True)
class NextTokens(Rule):
    """A token fires when the one after it is, without regard to case and spaces, among these."""

    words: frozenset[str]

    @override
    def predict(self, pieces: Sequence[str]) -> tuple[float, ...]:
        following = [*(word_of(piece) for piece in pieces[1:]), ""]
        return tuple(float(bool(word) and word in self.words) for word in following)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": "next", "words": sorted(self.words)}


def rule_from_json(value: Mapping[str, Any]) -> Rule:
    """Read what `to_json` wrote.

    Raises:
        ValueError: of another kind or form, or with too many entries.
    """
    reader = _READERS.get(value.get("kind", ""))
    if reader is None:
        raise ValueError(f"rules are of the kinds {', '.join(_READERS)}, not {value.get('kind')!r}")
    size = max((len(each) for each in value.values() if isinstance(each, list | dict)), default=0)
    if size > MAX_ENTRIES:
        raise ValueError(f"a rule has at most {MAX_ENTRIES} entries, not {size}")
    try:
        return reader(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a rule of kind {value['kind']} has another form") from error


def _read_classes(value: Mapping[str, Any]) -> TokenClasses:
    tests = tuple((str(name), str(argument)) for name, argument in value["tests"])
    unknown = {name for name, _ in tests} - TESTS.keys()
    if unknown:
        raise ValueError(f"no test of tokens is called '{min(unknown)}'")
    return TokenClasses(tests, float(value["value"]))


_READERS: dict[str, Callable[[Mapping[str, Any]], Rule]] = {
    "tokens": lambda value: TokenTable({str(k): float(v) for k, v in value["values"].items()}),
    "classes": _read_classes,
    "ngrams": lambda value: NGrams({tuple(map(str, words)): float(v) for words, v in value["entries"]}),
    "next": lambda value: NextTokens(frozenset(map(str, value["words"]))),
}


@lru_cache(maxsize=100_000)
def word_of(piece: str) -> str:
    """The token without regard to case and to the space before it; white space alone stays as it is."""
    return piece.strip().casefold() or piece


def _is_class(name: str) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        return bool(text) and all(unicodedata.category(c).startswith(name) for c in text)

    return holds


def _is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(c, "") for c in text if c.isalpha())


_CLASSES: dict[str, Callable[[str], bool]] = {
    "number": lambda text: (
        bool(text) and any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)
    ),
    "punctuation": _is_class("P"),
    "symbol": _is_class("S"),
    "capitalised": lambda text: len(text) > 1 and text[0].isupper() and not text.isupper(),
    "upper case": lambda text: len(text) > 1 and text.isupper(),
    "other script": lambda text: any(c.isalpha() for c in text) and not _is_latin(text),
}
CLASS_NAMES = (*_CLASSES, "line break")

TESTS: dict[str, Callable[[str, str], bool]] = {
    "word": lambda argument, piece: word_of(piece) == argument,
    "prefix": lambda argument, piece: word_of(piece).startswith(argument),
    "suffix": lambda argument, piece: word_of(piece).endswith(argument) and word_of(piece) != argument,
    "class": lambda argument, piece: (
        "\n" in piece if argument == "line break" else _CLASSES[argument](piece.strip())
    ),
}
"""Tests of a token: by its word, by how the word begins or ends, by the class of its characters."""


@lru_cache(maxsize=200_000)
def passes(test: tuple[str, str], piece: str) -> bool:
    """Whether the token passes."""
    return TESTS[test[0]](test[1], piece)
