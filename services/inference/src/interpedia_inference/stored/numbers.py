"""The numbers that a published build stored of an SAE's features.

A build never changes once it is published, so whole columns are kept in memory by version.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, text

from interpedia_shared.db.models import Feature
from interpedia_shared.db.session import Database

_COLUMNS = text(
    "SELECT string_agg(int4send(idx), ''::bytea ORDER BY idx) AS idx,"
    " string_agg(float8send(density), ''::bytea ORDER BY idx) AS density,"
    " string_agg(float8send(max_activation), ''::bytea ORDER BY idx) AS max_activation,"
    " string_agg(float8send(mean_activation), ''::bytea ORDER BY idx) AS mean_activation"
    " FROM feature WHERE sae_version_id = :version"
)
"""As bytes, because a row per feature would keep the event loop busy decoding 65,536 of them."""


@dataclass(frozen=True, slots=True)
class FeatureNumbers:
    """One feature on the corpus of its build, activations in the SAE's own scale."""

    density: float
    """Share of the counted tokens on which it is non-zero, 0..1."""
    max_activation: float
    """Largest magnitude."""
    mean_when_active: float
    """Mean over the tokens on which it is non-zero, with signs."""

    @property
    def mean_activation(self) -> float:
        """Mean over all counted tokens, the silent ones included."""
        return self.density * self.mean_when_active


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumns:
    """The numbers of all features of one build, by index; NaN where the build has no row."""

    density: NDArray[np.float64]  # [d_sae]
    max_activation: NDArray[np.float64]  # [d_sae]
    mean_when_active: NDArray[np.float64]  # [d_sae]

    @property
    def n_bytes(self) -> int:
        """Memory that they take."""
        return self.density.nbytes + self.max_activation.nbytes + self.mean_when_active.nbytes


class StoredNumbers:
    """Reads them, and keeps the columns that were used last.

    Args:
        database: Where the builds are.
        max_bytes: Most memory that kept columns take; 24 bytes a feature.
    """

    def __init__(self, database: Database, *, max_bytes: int = 256 * 2**20) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, StoredColumns] = OrderedDict()
        self._lock = asyncio.Lock()

    async def columns(self, version_id: int, d_sae: int) -> StoredColumns:
        """All features of one build."""
        async with self._lock:
            columns = self._kept.get(version_id)
            if columns is None:
                columns = self._kept[version_id] = await self._read_columns(version_id, d_sae)
                self._make_room()
            self._kept.move_to_end(version_id)
            return columns

    async def of(self, version_id: int, indices: Sequence[int]) -> dict[int, FeatureNumbers]:
        """Some features of one build; those that it has no row of are left out."""
        query = select(Feature.idx, Feature.density, Feature.max_activation, Feature.mean_activation).where(
            Feature.sae_version_id == version_id, Feature.idx.in_(sorted(set(indices)))
        )
        async with self._database.read() as session:
            rows = (await session.execute(query)).all()
        return {index: FeatureNumbers(density, top, mean) for index, density, top, mean in rows}

    async def _read_columns(self, version_id: int, d_sae: int) -> StoredColumns:
        async with self._database.read() as session:
            row = (await session.execute(_COLUMNS, {"version": version_id})).one()
        indices = np.frombuffer(row.idx or b"", ">i4")

        def spread(packed: bytes | None) -> NDArray[np.float64]:
            column = np.full(d_sae, np.nan)
            column[indices] = np.frombuffer(packed or b"", ">f8")
            return column

        return StoredColumns(spread(row.density), spread(row.max_activation), spread(row.mean_activation))

    def _make_room(self) -> None:
        while len(self._kept) > 1 and sum(kept.n_bytes for kept in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
