"""Ranking sparse activations against the plain definition, feature by feature."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_inference.top.ranking import (
    Ranked,
    Sparse,
    rank_at_each,
    rank_by_maximum,
    rank_by_sum,
    values_of,
)

Row = tuple[int, int, float, int]
POSITIONS = 5


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray | None], np.ndarray]:
    """Dense activations of one to three SAEs, what may be ranked of each, and which positions count.

    Values are eighths, so that ties happen and sums are exact.
    """
    values = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 0.5, 2.5, 0.125])
    tables, allowed = [], []
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 6))
        cells = draw(st.lists(values, min_size=POSITIONS * width, max_size=POSITIONS * width))
        tables.append(np.array(cells).reshape(POSITIONS, width))
        flags = st.lists(st.booleans(), min_size=width, max_size=width).map(np.array)
        allowed.append(draw(st.none() | flags))
    counted = draw(st.lists(st.booleans(), min_size=POSITIONS, max_size=POSITIONS))
    return tables, allowed, np.array(counted)


def sparse(tables: list[np.ndarray], allowed: list[np.ndarray | None]) -> list[Sparse]:
    parts = []
    for table, flags in zip(tables, allowed, strict=True):
        position, feature = np.nonzero(table)
        parts.append(Sparse(table.shape[1], position, feature, table[position, feature], flags))
    return parts


def plainly(
    tables: list[np.ndarray], allowed: list[np.ndarray | None], counted: np.ndarray, *, by_sum: bool = False
) -> list[Row]:
    """Each feature by itself: the value it is ranked by and where it is largest."""
    rows: list[Row] = []
    for sae, (table, flags) in enumerate(zip(tables, allowed, strict=True)):
        for feature in range(table.shape[1]):
            column = np.where(counted, table[:, feature], 0.0)
            if not column.any() or (flags is not None and not flags[feature]):
                continue
            position = int(np.argmax(np.abs(column)))
            value = float(column.sum() if by_sum else column[position])
            if value != 0:
                rows.append((sae, feature, value, position))
    return sorted(rows, key=lambda row: (-abs(row[2]), row[0], row[1]))


def rows_of(ranked: Ranked) -> list[Row]:
    columns = (ranked.sae, ranked.feature, ranked.value, ranked.position)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=40, deadline=None)
@given(texts(), st.integers(1, 8))
def test_by_maximum_and_sum(text, k: int) -> None:
    tables, allowed, counted = text
    parts = sparse(tables, allowed)
    assert rows_of(rank_by_maximum(parts, counted, k)) == plainly(tables, allowed, counted)[:k]
    assert rows_of(rank_by_sum(parts, counted, k)) == plainly(tables, allowed, counted, by_sum=True)[:k]


@settings(max_examples=40, deadline=None)
@given(texts(), st.integers(1, 8))
def test_at_each_position(text, k: int) -> None:
    tables, allowed, counted = text
    found = rank_at_each(sparse(tables, allowed), counted, k)
    assert len(found) == POSITIONS
    for position, ranked in enumerate(found):
        only = counted & (np.arange(POSITIONS) == position)
        assert rows_of(ranked) == plainly(tables, allowed, only)[:k]


@settings(max_examples=40, deadline=None)
@given(texts())
def test_values_are_the_tables_own(text) -> None:
    tables, allowed, counted = text
    parts = sparse(tables, allowed)
    ranked = rank_by_maximum(parts, counted, 100)
    values = values_of(parts, ranked, POSITIONS)
    for row, (sae, feature, _, _) in zip(values, rows_of(ranked), strict=True):
        assert row.tolist() == tables[sae][:, feature].tolist()
