"""Gives the frozen task of a feature: the stored one, or a new one that is then stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from interpedia_autointerp.frozen import repository
from interpedia_autointerp.material import ActivationBackend, Embedder, Task
from interpedia_autointerp.material.builder import build_task
from interpedia_autointerp.material.pool import Pool
from interpedia_autointerp.material.repository import read_build, read_sources, sample_passages
from interpedia_autointerp.material.settings import MaterialSettings
from interpedia_autointerp.material.source import Build, FeatureSource
from interpedia_shared.db.session import Database

_BUILDS_KEPT = 4
_LIVE_AT_ONCE = 4


@dataclass
class _Kept:
    build: Build
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pool: Pool | None = None


class TaskShelf:
    """Tasks of any build. One object per process; what all features of a build share is read once.

    Args:
        database: where dashboards and tasks are.
        backend: runs candidates of near misses; None for material from what is stored only.
        embedder: finds windows that are close in meaning.
        pool_contexts: contexts in which near misses are looked for.
    """

    def __init__(
        self,
        database: Database,
        backend: ActivationBackend | None,
        embedder: Embedder | None,
        *,
        pool_contexts: int,
    ) -> None:
        self._database = database
        self._backend = backend
        self._embedder = embedder
        self._pool_contexts = pool_contexts
        self._builds: dict[int, _Kept] = {}
        self._settings = MaterialSettings()

    async def tasks(
        self, version_id: int, indices: Sequence[int], *, verify: bool, keep: bool = False
    ) -> dict[int, Task]:
        """Tasks by feature index; features without a dashboard are left out.

        Args:
            version_id: the build.
            indices: which features.
            verify: with near misses checked on the live model. Such tasks are stored: another time the
                model might run elsewhere. Others are made from stored rows alone, and again alike.
            keep: store the others too.

        Raises:
            Problem: what the backend raises.
        """
        verify = verify and self._backend is not None
        found: dict[int, Task] = {}
        if verify:
            async with self._database.read() as session:
                found = await repository.verified_tasks(session, version_id, indices)
        missing = [index for index in indices if index not in found]
        if missing:
            made = await self._make(version_id, missing, verify=verify)
            if verify or keep:
                async with self._database.write() as session:
                    await repository.keep(session, version_id, list(made.values()))
            found |= made
        return {index: found[index] for index in indices if index in found}

    async def build(self, version_id: int) -> Build:
        """What the features of a build share.

        Raises:
            VersionNotFound: there is no such build.
        """
        return (await self._kept(version_id)).build

    async def _make(self, version_id: int, indices: Sequence[int], *, verify: bool) -> dict[int, Task]:
        kept = await self._kept(version_id)
        async with self._database.read() as session:
            sources = await read_sources(session, kept.build, indices)
        if not verify:
            return await asyncio.to_thread(_plain, list(sources.values()), self._settings)
        pool = await self._pool(kept)
        slots = asyncio.Semaphore(_LIVE_AT_ONCE)

        async def one(source: FeatureSource) -> Task:
            async with slots:
                return await build_task(source, self._settings, pool=pool, backend=self._backend)

        return {task.feature.index: task for task in await asyncio.gather(*map(one, sources.values()))}

    async def _kept(self, version_id: int) -> _Kept:
        kept = self._builds.pop(version_id, None)
        if kept is None:
            async with self._database.read() as session:
                kept = _Kept(await read_build(session, version_id))
        self._builds[version_id] = kept
        while len(self._builds) > _BUILDS_KEPT:
            self._builds.pop(next(iter(self._builds)))
        return kept

    async def _pool(self, kept: _Kept) -> Pool:
        async with kept.lock:
            if kept.pool is None:
                async with self._database.read() as session:
                    passages = await sample_passages(session, kept.build, self._pool_contexts)
                size = self._settings.window_tokens
                kept.pool = Pool(kept.build, passages, size=size, embedder=self._embedder)
            return kept.pool


def _plain(sources: Sequence[FeatureSource], settings: MaterialSettings) -> dict[int, Task]:
    """In a thread: without a backend the builder never waits, so a loop of its own costs nothing."""

    async def all_of_them() -> dict[int, Task]:
        return {source.index: await build_task(source, settings) for source in sources}

    return asyncio.run(all_of_them())
