"""Texts of the demo corpus that are exactly so many tokens, no two alike."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

BOS_ID = 1
_STEP = 512
"""Characters between two starts."""
_CHARACTERS_PER_TOKEN = 10


@dataclass(frozen=True)
class Text:
    """A text and its tokens as the model reads them, BOS in front."""

    text: str
    ids: tuple[int, ...]


class Texts:
    """Deals out texts; none is ever dealt twice, so that nobody finds an answer that is there already.

    Args:
        tokenizer: `tokenizer.json`.
        corpus: One JSON object with `text` a line, xz-compressed.
    """

    def __init__(self, tokenizer: Path, corpus: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._beginnings = self._walk(corpus)

    def deal(self, count: int, n_tokens: int) -> list[Text]:
        """`count` texts of `n_tokens` tokens, BOS included.

        Raises:
            ValueError: the corpus is used up.
        """
        found: list[Text] = []
        for beginning in self._beginnings:
            if len(found) == count:
                break
            text = self._cut(beginning, n_tokens)
            if text is not None:
                found.append(text)
        if len(found) < count:
            raise ValueError(f"the corpus holds no {count} more texts of {n_tokens} tokens")
        return found

    def ids_of(self, text: str) -> tuple[int, ...]:
        """The tokens of any text, BOS in front."""
        return (BOS_ID, *self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _cut(self, beginning: str, n_tokens: int) -> Text | None:
        """As much of it as has so many tokens; None when the cut falls where the tokens would change."""
        piece = beginning[: n_tokens * _CHARACTERS_PER_TOKEN]
        encoded = self._tokenizer.encode(piece, add_special_tokens=False)
        if len(encoded.ids) < n_tokens:
            return None
        text = beginning[: encoded.offsets[n_tokens - 2][1]]
        ids = self.ids_of(text)
        return Text(text, ids) if len(ids) == n_tokens and min(ids[1:]) > BOS_ID else None

    def _walk(self, corpus: Path) -> Iterator[str]:
        with lzma.open(corpus, "rt", encoding="utf-8") as lines:
            for line in lines:
                text: str = json.loads(line)["text"]
                for start in range(0, len(text), _STEP):
                    yield text[start:]
