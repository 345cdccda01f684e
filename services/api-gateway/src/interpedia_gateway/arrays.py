"""`column = ANY(array)`: one statement text for any number of values, unlike IN."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Integer, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute


def one_of(column: InstrumentedAttribute[int], values: Iterable[int]) -> ColumnElement[bool]:
    """Whether a column is one of some 32-bit integers."""
    return column == any_(literal(sorted(set(values)), ARRAY(Integer)))
