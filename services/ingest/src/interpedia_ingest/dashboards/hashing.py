"""Seeded 64-bit hashes of integers: how everything that looks random here is chosen.

A choice is "the k smallest hashes", so that it depends on the seed and on the items, never on the order or
the sharding in which they come by. For one seed and purpose the hash is a bijection, so that there are no
ties.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


class Purpose(IntEnum):
    """Keeps choices apart that are made with the same seed; the numbers are part of the format."""

    CONTEXT = 1
    EXAMPLE = 2
    RANDOM_CONTEXT = 3
    TOKEN_SAMPLE = 4
    WINDOW = 5


def mix(values: U64) -> U64:
    """Scramble 64-bit integers one to one.

    Source: the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    2014).
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seeded_hash(seed: int, purpose: Purpose, *keys: NDArray[np.integer[Any]]) -> U64:
    """Hash tuples of non-negative integers; the keys broadcast against one another.

    One to one in the last key, for given seed, purpose and other keys.
    """
    state = mix(np.array([seed & (2**64 - 1)], np.uint64) ^ mix(np.array([int(purpose)], np.uint64)))
    for key in keys:
        state = mix(state ^ key.astype(np.uint64))
    return state


def digest_of(parts: Iterable[bytes]) -> str:
    """SHA-256 over byte strings with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
