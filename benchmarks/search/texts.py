"""Explanations that look like real ones to an index: words of all frequencies, vectors with neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from interpedia_shared.embeddings import Embedder
from interpedia_shared.embeddings.weights import find_weights

KINDS = (
    "names of {}",
    "the word {}",
    "text about {}",
    "{} in news reports",
    "{} in legal documents",
    "verbs that follow {}",
    "code that mentions {}",
    "questions about {}",
    "{} at the start of a sentence",
    "lists and tables of {}",
    "feelings towards {}",
    "places known for {}",
    "the history of {}",
    "{} as a metaphor",
    "technical terms of {}",
    "advice on {}",
)
N_TOPICS = 1024
N_PHRASES = 2048
FIRST_WORD, LAST_WORD = 2000, 20_000
SHARES = (0.65, 0.35)
"""How much each of its two phrases has in an explanation's vector."""


@dataclass(frozen=True)
class Material:
    """What explanations are mixed of.

    Attributes:
        topics: words, the frequent ones first.
        phrases: short texts about them.
        vectors: of the phrases; shape [N_PHRASES, 384], rows of length 1.
    """

    topics: list[str]
    phrases: list[str]
    vectors: NDArray[np.float32]


def topics() -> list[str]:
    """Whole words of the encoder's vocabulary, evenly over their frequencies."""
    vocabulary = cast(
        dict[str, int], cast(Any, Tokenizer.from_file(str(find_weights() / "tokenizer.json"))).get_vocab()
    )
    words = [
        word
        for word, number in sorted(vocabulary.items(), key=lambda item: item[1])
        if FIRST_WORD <= number < LAST_WORD and len(word) >= 4 and word.isascii() and word.isalpha()
    ]
    return words[:: len(words) // N_TOPICS][:N_TOPICS]


def material(embedder: Embedder) -> Material:
    """Every topic in two phrases, with their vectors by the real encoder."""
    words = topics()
    phrases = [KINDS[number * 7 % len(KINDS)].format(words[number // 2]) for number in range(N_PHRASES)]
    return Material(words, phrases, embedder.embed(phrases))


def explanations(found: Material, count: int, seed: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Texts of two phrases with vectors of shape [n, 384], 4,096 at a time.

    A vector is the weighted mean of those of its two phrases, for a hundredth of the encoder's time: its
    cosine with what the encoder makes of the text is 0.90 on average, and nearest neighbours are about as
    near to each other (0.56 against 0.52).
    """
    random = np.random.default_rng(seed)
    for first in range(0, count, 4096):
        size = min(4096, count - first)
        one, two = random.integers(0, N_PHRASES, (2, size))
        mixed = SHARES[0] * found.vectors[one] + SHARES[1] * found.vectors[two]
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        texts = [f"{found.phrases[a]}, and {found.phrases[b]}" for a, b in zip(one, two, strict=True)]
        yield texts, mixed.astype(np.float32)


def queries(words: list[str], count: int, seed: int) -> list[str]:
    """Distinct queries: a word, two of them, a phrase, a sentence; common and rare words alike."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        a, b, c = (words[number] for number in random.integers(0, len(words), 3))
        shapes = (a, f"{a} {b}", f"text about {a}", f"{a} or {b} in the history of {c}")
        found[shapes[int(random.integers(0, len(shapes)))]] = None
    return list(found)
