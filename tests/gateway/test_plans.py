"""Deep pages cost what the first one does: Postgres answers every order from an index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from interpedia_gateway.features.filters import FeatureFilter, list_statement, scope_of
from interpedia_gateway.keysets import Paging
from interpedia_shared.db.session import Database
from interpedia_shared.pagination import make_cursor

N_FEATURES = 50_000
VERSIONS = (1, 2)


@pytest.fixture(scope="module")
async def many(shared_database: Database) -> AsyncIterator[Database]:
    """Two builds of 50,000 features each, with small blobs, among the shared rows."""
    async with shared_database.write() as session:
        for version in VERSIONS:
            await session.execute(
                text(
                    "INSERT INTO feature SELECT :v, i, (i::bigint * 7919 % 50000) / 50000.0, i % 1000,"
                    " (i::bigint * 104729 % 50000) / 100.0, 1.0, 0, 3, ARRAY[i % 5000, i % 4999],"
                    " '{1}', '\\x01', '\\x01' FROM generate_series(0, :n - 1) AS i"
                ),
                {"v": 1_000_000 + version, "n": N_FEATURES},
            )
    async with shared_database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("ANALYZE feature"))
    yield shared_database
    async with shared_database.write() as session:
        await session.execute(text("DELETE FROM feature WHERE sae_version_id > 1000000"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain(database: Database, wanted: FeatureFilter, key: list[float] | None) -> list[dict[str, Any]]:
    version = 1_000_000 + VERSIONS[0]
    cursor = None if key is None else make_cursor(key, scope_of(version, wanted))
    statement = list_statement(version, 1, wanted, Paging(limit=50, cursor=cursor), None)
    sql = str(statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    async with database.read() as session:
        (found,) = await session.scalar(text("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace(":", "\\:")))
        return list(nodes(found["Plan"]))


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["index", "density", "max_activation"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.98])
async def test_every_order_is_read_from_an_index(many: Database, sort: str, order: str, place: float) -> None:
    wanted = FeatureFilter(sort=sort, order=order)
    high = {"index": 50_000, "density": 1.0, "max_activation": 500.0}[sort]
    at = high * (place if order == "asc" else 1 - place)
    key = None if place == 0 else [int(at)] if sort == "index" else [at, 17]
    found = await explain(many, wanted, key)
    kinds = [node["Node Type"] for node in found]
    assert "Seq Scan" not in kinds
    assert not any("Sort" in kind for kind in kinds)
    assert any(kind.startswith("Index") for kind in kinds)
    read = sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in found[-1:])
    assert read <= 51, "a deep page reads no more rows than it shows"


async def test_density_bounds_are_conditions_of_the_index(many: Database) -> None:
    wanted = FeatureFilter(sort="density", order="asc", min_density=0.25, max_density=0.75, alive=True)
    found = await explain(many, wanted, None)
    scan = found[-1]
    assert scan["Node Type"].startswith("Index")
    assert "density" in scan["Index Cond"]
    assert scan.get("Rows Removed by Filter", 0) == 0


async def test_a_sort_without_an_index_would_be_seen(many: Database) -> None:
    """The control: the same check finds the sort of a column that has no index."""
    async with many.read() as session:
        (found,) = await session.scalar(
            text(
                "EXPLAIN (FORMAT JSON) SELECT idx FROM feature WHERE sae_version_id = 1000001"
                " ORDER BY mean_activation, n_active_tokens LIMIT 50"
            )
        )
    assert any("Sort" in node["Node Type"] for node in nodes(found["Plan"]))
    assert np.isfinite(found["Plan"]["Total Cost"])
