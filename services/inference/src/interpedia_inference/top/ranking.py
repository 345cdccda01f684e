"""Ranking the sparse activations of many SAEs on one text. Pure functions on arrays, no loops over features.

Features are ranked by magnitude, as dashboards rank examples (only `abstopk` and neurons have negative
activations); the value that is given keeps its sign. Equal ones are ordered by SAE, then by index, so that
equal requests give equal answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """The non-zero activations of one SAE on one text: three arrays of one length, and what may be ranked."""

    d_sae: int
    position: Ints  # [nnz]
    feature: Ints  # [nnz]
    value: Floats  # [nnz]
    allowed: Flags | None = None  # [d_sae]; None allows all


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Features in order: arrays of one length."""

    sae: Ints  # [n] which of the SAEs that were given
    feature: Ints  # [n] index within it
    value: Floats  # [n] what it was ranked by
    position: Ints  # [n] where it is largest, of the positions that count

    def __len__(self) -> int:
        return len(self.sae)


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """All that counts, of all SAEs, with one number for each feature of any of them."""

    offsets: Ints  # [n_saes + 1]
    key: Ints  # [nnz]
    position: Ints  # [nnz]
    value: Floats  # [nnz]

    def ranked(self, key: Ints, value: Floats, position: Ints) -> Ranked:
        sae = np.searchsorted(self.offsets, key, side="right") - 1
        return Ranked(sae, key - self.offsets[sae], value, position)


def rank_by_maximum(parts: Sequence[Sparse], counted: Flags, k: int) -> Ranked:
    """Return the k features with the largest activation at any counted position.

    Args:
        parts: One for each SAE.
        counted: [pos] which positions count.
        k: Most features to return; silent ones are not ranked.
    """
    pool = _pool(parts, counted)
    peak = _peaks(pool)
    best = _largest(peak, k)
    value, position = _where_largest(pool, best)
    return pool.ranked(best, value, position)


def rank_by_sum(parts: Sequence[Sparse], counted: Flags, k: int) -> Ranked:
    """Return the k features with the largest sum over the counted positions; `position` is as by maximum."""
    pool = _pool(parts, counted)
    total = np.zeros(int(pool.offsets[-1]))
    np.add.at(total, pool.key, pool.value)
    best = _largest(np.abs(total), k)
    _, position = _where_largest(pool, best)
    return pool.ranked(best, total[best], position)


def rank_at_each(parts: Sequence[Sparse], counted: Flags, k: int) -> list[Ranked]:
    """Return the k features with the largest activation at each position; none where it does not count."""
    pool = _pool(parts, counted)
    order = np.lexsort((pool.key, -np.abs(pool.value), pool.position))
    position = pool.position[order]
    starts = np.searchsorted(position, np.arange(len(counted) + 1))
    rank = np.arange(len(order)) - starts[position]
    order = order[rank < k]
    ends = np.concatenate(([0], np.cumsum(np.minimum(np.diff(starts), k))))
    chosen = pool.ranked(pool.key[order], pool.value[order], pool.position[order])
    return [
        Ranked(chosen.sae[a:b], chosen.feature[a:b], chosen.value[a:b], chosen.position[a:b])
        for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]


def values_of(parts: Sequence[Sparse], ranked: Ranked, n_positions: int) -> Floats:
    """Return the activation of each ranked feature at each position: [n, pos], 0 where it is silent."""
    offsets = _offsets(parts)
    wanted = offsets[ranked.sae] + ranked.feature
    rows = np.full(int(offsets[-1]), -1, dtype=np.int64)
    rows[wanted] = np.arange(len(wanted))
    table = np.zeros((len(wanted), n_positions))
    for number, part in enumerate(parts):
        row = rows[offsets[number] + part.feature]
        here = row >= 0
        table[row[here], part.position[here]] = part.value[here]
    return table


def _offsets(parts: Sequence[Sparse]) -> Ints:
    return np.concatenate(([0], np.cumsum([part.d_sae for part in parts], dtype=np.int64)))


def _pool(parts: Sequence[Sparse], counted: Flags) -> _Pool:
    offsets = _offsets(parts)
    keys: list[Ints] = []
    positions: list[Ints] = []
    values: list[Floats] = []
    for number, part in enumerate(parts):
        counts = counted[part.position]
        if part.allowed is not None:
            counts = counts & part.allowed[part.feature]
        keys.append(offsets[number] + part.feature[counts])
        positions.append(part.position[counts])
        values.append(part.value[counts])
    return _Pool(offsets, np.concatenate(keys), np.concatenate(positions), np.concatenate(values))


def _peaks(pool: _Pool) -> Floats:
    peak = np.zeros(int(pool.offsets[-1]))
    np.maximum.at(peak, pool.key, np.abs(pool.value))
    return peak


def _largest(magnitude: Floats, k: int) -> Ints:
    """Return the keys of the k largest magnitudes above zero, largest first, equal ones by key."""
    alive = np.flatnonzero(magnitude)
    if len(alive) > k:
        threshold = np.partition(magnitude[alive], len(alive) - k)[len(alive) - k]
        alive = alive[magnitude[alive] >= threshold]
    order = np.lexsort((alive, -magnitude[alive]))
    return alive[order][:k]


def _where_largest(pool: _Pool, keys: Ints) -> tuple[Floats, Ints]:
    """Return the value of largest magnitude of each key, and its first position."""
    here = np.isin(pool.key, keys)
    key, position, value = pool.key[here], pool.position[here], pool.value[here]
    order = np.lexsort((position, -np.abs(value), key))
    unique, first = np.unique(key[order], return_index=True)
    at = order[first][np.searchsorted(unique, keys)]
    return value[at], position[at]
