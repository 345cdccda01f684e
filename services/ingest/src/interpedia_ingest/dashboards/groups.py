"""Choosing k of each group, for many groups at once and without sorting everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 64
_FULL = float(2**64)


def largest_per_group(
    values: NDArray[np.float32], groups: NDArray[np.int64], *, n_groups: int, k: int
) -> NDArray[np.int64]:
    """Indices of the k largest values of each group, by group and rank; of equal values the earlier ones.

    Args:
        values: Positive; shape [n].
        groups: Group of each value, 0..n_groups-1, any order; shape [n].
        n_groups: Number of groups.
        k: At most so many of each group.
    """
    top = np.zeros(n_groups)
    np.maximum.at(top, groups, values)
    # Values are binned between 0 and the group's largest; only bins that can hold one of the k are sorted.
    scale = np.divide(_BINS - 1, top, out=np.zeros(n_groups), where=top > 0)
    bins = (values * scale[groups]).astype(np.int64)
    counts = np.bincount(groups * _BINS + bins, minlength=n_groups * _BINS).reshape(n_groups, _BINS)
    from_above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    lowest = np.maximum((from_above >= k).sum(axis=1) - 1, 0)
    candidates = np.flatnonzero(bins >= lowest[groups])
    order = candidates[np.lexsort((-values[candidates], groups[candidates]))]
    return order[rank_in_group(groups[order]) < k]


def smallest_hashes_per_group(
    hashes: NDArray[np.uint64], groups: NDArray[np.int64], *, n_groups: int, k: int
) -> NDArray[np.int64]:
    """Indices of the k smallest hashes of each group, by group and rank.

    Args:
        hashes: Uniform over 64 bits, different within a group; shape [n].
        groups: Group of each hash, 0..n_groups-1, any order; shape [n].
        n_groups: Number of groups.
        k: At most so many of each group.
    """
    sizes = np.bincount(groups, minlength=n_groups)
    is_candidate = hashes <= _limits(sizes, k)[groups]
    found = np.bincount(groups[is_candidate], minlength=n_groups)
    is_unlucky = found < np.minimum(sizes, k)
    if is_unlucky.any():  # chance left fewer than k below the limit: take the group whole
        is_candidate |= is_unlucky[groups]
    candidates = np.flatnonzero(is_candidate)
    order = candidates[np.lexsort((hashes[candidates], groups[candidates]))]
    return order[rank_in_group(groups[order]) < k]


def smallest_hashes_by_row(
    hashes: NDArray[np.uint64], is_allowed: NDArray[np.bool_], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the k smallest allowed hashes of each row of a matrix, by row and rank.

    Args:
        hashes: Uniform over 64 bits, different within a row; shape [n_rows, n].
        is_allowed: Which may be chosen; shape [n_rows, n].
        k: At most so many of each row.
    """
    sizes = is_allowed.sum(axis=1)
    is_candidate = hashes <= _limits(sizes, k)[:, None]
    is_candidate &= is_allowed
    is_unlucky = is_candidate.sum(axis=1) < np.minimum(sizes, k)
    is_candidate[is_unlucky] = is_allowed[is_unlucky]
    rows, columns = np.nonzero(is_candidate)
    order = np.lexsort((hashes[rows, columns], rows))
    order = order[rank_in_group(rows[order]) < k]
    return rows[order], columns[order]


def _limits(sizes: NDArray[np.int64], k: int) -> NDArray[np.uint64]:
    """A hash that some 8 k members of a large group stay below; the largest hash for a small group."""
    share = 8.0 * k / np.maximum(sizes, 1)
    limits = np.full(len(sizes), np.iinfo(np.uint64).max)
    is_large = share < 1.0
    limits[is_large] = (share[is_large] * _FULL).astype(np.uint64)
    return limits


def rank_in_group(groups: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Place of each item within its run of equal groups, from 0; equal groups are consecutive."""
    n = len(groups)
    if n == 0:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    lengths = np.diff(np.concatenate((starts, [n])))
    return np.arange(n) - np.repeat(starts, lengths)


def slices(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate the index ranges `starts[i]:starts[i] + lengths[i]`."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
