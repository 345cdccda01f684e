"""Probabilities of answers, read from logprobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from interpedia_autointerp.llm import TokenLogprob

MIN_MASS = 0.05
"""Least probability that the words asked for must have together; below it, the model said something else."""


def word_masses(token: TokenLogprob, words: Mapping[str, str]) -> dict[str, float]:
    """Probability of each meaning at one token: `words` maps spellings, lower case and bare, to meanings."""
    alternatives = dict(token.top)
    if token.logprob is not None:
        alternatives.setdefault(token.text, token.logprob)
    masses = dict.fromkeys(words.values(), 0.0)
    for text, logprob in alternatives.items():
        meaning = words.get(text.strip(" \t\n\"'*.▁Ġ").lower())
        if meaning is not None:
            masses[meaning] += math.exp(logprob)
    return masses


_YES_NO = {"yes": "yes", "y": "yes", "true": "yes", "no": "no", "n": "no", "false": "no"}


def yes_probability(tokens: Sequence[TokenLogprob]) -> float | None:
    """P(yes) / (P(yes) + P(no)), at the first generated token that is either; None if none is."""
    for token in tokens:
        masses = word_masses(token, _YES_NO)
        total = masses["yes"] + masses["no"]
        if total >= MIN_MASS:
            return masses["yes"] / total
    return None


_DIGITS = {str(digit): str(digit) for digit in range(10)}


def expected_digit(token: TokenLogprob) -> float | None:
    """Σ v·p(v) / Σ p(v) over the digits 0 to 9; None when they have next to no probability."""
    masses = word_masses(token, _DIGITS)
    total = sum(masses.values())
    if total < MIN_MASS:
        return None
    return sum(int(digit) * mass for digit, mass in masses.items()) / total
