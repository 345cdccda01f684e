"""Which token ids a query names, in each tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sqlalchemy import select

from interpedia_gateway.vocabulary import Vocabularies, Words
from interpedia_shared.db.models import LanguageModel
from interpedia_shared.db.session import ReadSession

MAX_WORDS = 6
MIN_LETTERS = 3
"""Shorter words of a longer query name tokens of everything: they are left out."""
# fmt: off
EVERYWHERE = frozenset({
    "about", "and", "are", "but", "can", "did", "does", "for", "from", "had", "has", "have", "her", "his",
    "how", "into", "its", "not", "off", "our", "out", "that", "the", "their", "them", "then", "there",
    "they", "this", "was", "were", "what", "when", "where", "which", "who", "will", "with", "would", "you",
    "your",
})
# fmt: on
"""So are these, among other words: what they name says nothing of the topic."""
MAX_TOKENIZERS = 8
KEPT_S = 5.0


class Tokenizers:
    """Which tokenizer each model has; read again every few seconds, since models are added."""

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._hashes: dict[str, str] = {}

    async def of(self, session: ReadSession, model: str | None) -> list[str]:
        """Hashes of the tokenizers of one model or of all, at most MAX_TOKENIZERS."""
        now = time.monotonic()
        if self._read_at is None or now - self._read_at > KEPT_S or (model and model not in self._hashes):
            statement = select(LanguageModel.id, LanguageModel.tokenizer_hash).order_by(LanguageModel.id)
            self._hashes = {one: name for one, name in await session.execute(statement)}  # noqa: C416
            self._read_at = now
        hashes = self._hashes.values() if model is None else [self._hashes[model]]
        return list(dict.fromkeys(hashes))[:MAX_TOKENIZERS]


async def ids_by_tokenizer(
    session: ReadSession, vocabularies: Vocabularies, hashes: Iterable[str], query: str
) -> dict[str, list[int]]:
    """The token ids that a query names; tokenizers in which it names none are left out."""
    found = {name: token_ids(query, await vocabularies.words(session, name)) for name in hashes}
    return {name: ids for name, ids in found.items() if ids}


def token_ids(query: str, words: Words) -> list[int]:
    """Tokens shown as the query is, with or without a leading space, and as its words are, in any case."""
    pieces = query.split()
    names = [query]
    if len(pieces) <= MAX_WORDS:
        names += [piece for piece in pieces if len(pieces) == 1 or _names_something(piece)]
    ids: dict[int, None] = {}
    for name in names:
        for spelling in dict.fromkeys((name, name.lower(), name.capitalize(), name.upper())):
            for shown in (spelling, f" {spelling}"):
                token_id = words.vocabulary.find(shown)
                if token_id is not None:
                    ids[token_id] = None
    return list(ids)


def _names_something(piece: str) -> bool:
    return len(piece) >= MIN_LETTERS and piece.lower() not in EVERYWHERE
