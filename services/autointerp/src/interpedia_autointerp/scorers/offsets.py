"""Finding places of a text among the tokens that an endpoint cut it into."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from interpedia_autointerp.llm import TokenLogprob


class NotAligned(ValueError):
    """The endpoint's tokens do not spell the text that was sent, or there are none."""


def tokens_from(tokens: Sequence[TokenLogprob], text: str, start: int) -> Sequence[TokenLogprob]:
    """The tokens from the one on that holds the character at `start`, to the end of the text.

    Raises:
        NotAligned: see there.
    """
    joined = "".join(token.text for token in tokens)
    # a BOS may come first, and a generated token last
    shift = joined.find(text)
    if shift < 0:
        raise NotAligned("the endpoint's tokens do not spell the text")
    ends = list(accumulate(len(token.text) for token in tokens))
    first = next(number for number, end in enumerate(ends) if end > shift + start)
    last = next(number for number, end in enumerate(ends) if end >= shift + len(text))
    return tokens[first : last + 1]


def token_at(tokens: Sequence[TokenLogprob], text: str, start: int) -> TokenLogprob:
    """The token that holds the character at `start` of the text.

    Raises:
        NotAligned: see there.
    """
    return tokens_from(tokens, text, start)[0]
