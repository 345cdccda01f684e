"""From token ids to text, piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence

from interpedia_engine.errors import OutOfRange
from interpedia_engine.tokens import Vocabulary


class StreamedText:
    """Joins tokens to text that can be shown at once.

    A piece never ends within a character, and never holds the beginning of what may become a stop string. The
    pieces together are the same however the text is cut into tokens.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, stops: Sequence[str] = (), hidden_ids: Collection[int] = ()
    ) -> None:
        """Start a text.

        Args:
            vocabulary: `LanguageModel.vocabulary`.
            stops: Strings that end the text and are no part of it; the one that is complete first counts.
            hidden_ids: Token ids that add nothing to the text (special tokens).

        Raises:
            OutOfRange: a stop string is empty.
        """
        if not all(stops):
            raise OutOfRange("stop", "an empty string would stop everything")
        self._vocabulary = vocabulary
        self._stops = tuple(stops)
        self._hidden = frozenset(hidden_ids)
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._is_stopped

    def push(self, token: int) -> str:
        """Add a token and return what became readable, maybe nothing. After a stop nothing does.

        Raises:
            OutOfRange: the vocabulary has no such id.
        """
        if self._is_stopped or token in self._hidden:
            return ""
        return self._shown(self._bytes.decode(self._vocabulary[token]))

    def finish(self) -> str:
        """End the text and return the rest: held-back beginnings, U+FFFD for an unfinished character."""
        if self._is_stopped:
            return ""
        shown = self._shown(self._bytes.decode(b"", final=True)) + self._held
        self._held = ""
        return shown

    def _shown(self, new: str) -> str:
        text = self._held + new
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self._is_stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
