"""The endpoints of the settings, each with its connection, what it can do and how it counts tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from interpedia_autointerp.llm.capabilities import Capabilities
from interpedia_autointerp.llm.estimate import TokenEstimator
from interpedia_autointerp.llm.exchange import Line
from interpedia_autointerp.llm.probe import probe
from interpedia_autointerp.llm.settings import EndpointSettings, LLMSettings
from interpedia_shared.db.models import LLMEndpoint
from interpedia_shared.db.session import Database
from interpedia_shared.problems import EndpointNotFound


@dataclass
class Endpoint:
    """One endpoint as this process uses it."""

    name: str
    settings: EndpointSettings
    line: Line
    estimator: TokenEstimator = field(default_factory=TokenEstimator)
    found: Capabilities | None = None
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. Only after `Registry.ready`."""
        assert self.found is not None
        return self.found


# A probe costs tokens that no budget counts, so it cannot be had more often than this.
PROBE_PAUSE_S = 60.0


class Registry:
    """All endpoints by name."""

    def __init__(self, database: Database, settings: LLMSettings) -> None:
        self._database = database
        self._endpoints = {
            name: Endpoint(name, each, Line(name, each)) for name, each in settings.endpoints().items()
        }

    def names(self) -> list[str]:
        """Of all endpoints, the default first if there is one."""
        return list(self._endpoints)

    def get(self, name: str) -> Endpoint:
        """One endpoint, probed or not.

        Raises:
            EndpointNotFound: the settings have none of this name.
        """
        if name not in self._endpoints:
            raise EndpointNotFound(name, self.names())
        return self._endpoints[name]

    async def ready(self, name: str) -> Endpoint:
        """One endpoint with its capabilities: from this process, from the database if fresh, or by probing.

        Raises:
            EndpointNotFound, EndpointFailed, QuotaExhausted: see `get` and `probe`.
        """
        endpoint = self.get(name)
        if endpoint.found is None:
            async with endpoint.probing:
                if endpoint.found is None:
                    endpoint.found = await self._known(endpoint)
        return endpoint

    async def probe_again(self, name: str) -> Endpoint:
        """Find out anew, unless it was found out within the last minute.

        Raises:
            EndpointNotFound, EndpointFailed, QuotaExhausted: see `get` and `probe`.
        """
        endpoint = self.get(name)
        async with endpoint.probing:
            just_now = await self._stored(endpoint, max_age_s=PROBE_PAUSE_S)
            endpoint.found = just_now or await self._probed(endpoint)
        return endpoint

    async def _stored(self, endpoint: Endpoint, *, max_age_s: float) -> Capabilities | None:
        async with self._database.read() as session:
            row = await session.get(LLMEndpoint, endpoint.name)
        settings = endpoint.settings
        if (
            row is None
            or row.probed_at is None
            or (row.base_url, row.model) != (settings.base_url, settings.model)
        ):
            return None
        age_s = (datetime.now(UTC) - row.probed_at).total_seconds()
        return Capabilities.from_json(row.capabilities) if age_s < max_age_s else None

    async def _known(self, endpoint: Endpoint) -> Capabilities:
        stored = await self._stored(endpoint, max_age_s=endpoint.settings.probe_max_age_s)
        return stored or await self._probed(endpoint)

    async def _probed(self, endpoint: Endpoint) -> Capabilities:
        found = await probe(endpoint.line)
        values = {
            "base_url": endpoint.settings.base_url,
            "model": endpoint.settings.model,
            "capabilities": found.to_json(),
            "probed_at": datetime.now(UTC),
        }
        async with self._database.write() as session:
            await session.execute(
                insert(LLMEndpoint)
                .values(name=endpoint.name, **values)
                .on_conflict_do_update(index_elements=[LLMEndpoint.name], set_=values)
            )
        return found

    async def describe(self) -> list[Mapping[str, Any]]:
        """Name, address, model, prices and capabilities of each; those of endpoints never probed are null."""
        async with self._database.read() as session:
            rows = {row.name: row for row in await session.scalars(select(LLMEndpoint))}
        return [self._described(endpoint, rows.get(name)) for name, endpoint in self._endpoints.items()]

    def _described(self, endpoint: Endpoint, row: LLMEndpoint | None) -> Mapping[str, Any]:
        settings = endpoint.settings
        is_same = row is not None and (row.base_url, row.model) == (settings.base_url, settings.model)
        return {
            "name": endpoint.name,
            "base_url": settings.base_url,
            "model": settings.model,
            "has_key": settings.api_key is not None,
            "price_in": settings.price_in,
            "price_cached": settings.price_cached,
            "price_out": settings.price_out,
            "concurrency": settings.concurrency,
            "capabilities": row.capabilities if row is not None and is_same else None,
            "probed_at": row.probed_at if row is not None and is_same else None,
        }

    async def aclose(self) -> None:
        """Close all connections."""
        for endpoint in self._endpoints.values():
            await endpoint.line.transport.aclose()
