"""Which tokens the words of a query name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from interpedia_gateway.search.tokens import token_ids

TOKENS = ["war", " war", " and", " soldiers", " of", "And"]
WORDS: Any = SimpleNamespace(
    vocabulary=SimpleNamespace(find=lambda shown: TOKENS.index(shown) if shown in TOKENS else None)
)


def test_the_commonest_words_name_nothing_beside_others():
    assert token_ids("war and soldiers", WORDS) == [0, 1, 3]
    assert token_ids("and of", WORDS) == []


def test_alone_they_are_what_is_looked_for():
    assert sorted(token_ids("and", WORDS)) == [2, 5]
    assert token_ids("of", WORDS) == [4]
