"""Token strings by tokenizer, held in memory: they never change under one hash."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from sqlalchemy import select

from interpedia_shared.db.models import Tokenizer
from interpedia_shared.db.session import ReadSession
from interpedia_shared.tokens import Vocabulary, show_bytes


class Words:
    """One tokenizer's tokens, as bytes and as shown."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._bytes = [vocabulary.token(token_id) for token_id in range(len(vocabulary))]
        self._shown = [show_bytes(raw) for raw in self._bytes]

    def __len__(self) -> int:
        return len(self._shown)

    def show(self, token_id: int) -> str:
        """One token as text; an id that the tokenizer does not have (padding of the output layer) says so."""
        return self._shown[token_id] if 0 <= token_id < len(self._shown) else f"<no token {token_id}>"

    def show_all(self, ids: Sequence[int]) -> list[str]:
        """Several tokens, one string each."""
        if self._knows(ids):  # a dashboard has thousands of them: without a call for each
            return list(map(self._shown.__getitem__, ids))
        return [self.show(token_id) for token_id in ids]

    def text(self, ids: Sequence[int]) -> str:
        """Several tokens as one text; characters that are split over tokens come out whole."""
        known = ids if self._knows(ids) else [one for one in ids if 0 <= one < len(self._bytes)]
        return show_bytes(b"".join(map(self._bytes.__getitem__, known)))

    def _knows(self, ids: Sequence[int]) -> bool:
        return not ids or (min(ids) >= 0 and max(ids) < len(self._bytes))


class Vocabularies:
    """The tokenizers used last."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._words: OrderedDict[str, Words] = OrderedDict()

    async def words(self, session: ReadSession, tokenizer_hash: str) -> Words:
        """The strings of one tokenizer, read from the database the first time."""
        found = self._words.get(tokenizer_hash)
        if found is None:
            packed = (
                await session.execute(select(Tokenizer.vocabulary).where(Tokenizer.hash == tokenizer_hash))
            ).scalar_one()
            found = await asyncio.to_thread(lambda: Words(Vocabulary.unpack(packed)))
            self._words[tokenizer_hash] = found
            if len(self._words) > self._kept:
                self._words.popitem(last=False)
        self._words.move_to_end(tokenizer_hash)
        return found
