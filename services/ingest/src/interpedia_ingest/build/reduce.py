"""The `reduce` task: a range of an SAE's features, from spills to rows of the table `feature`."""

from __future__ import annotations

from interpedia_ingest.build import repository
from interpedia_ingest.build.materials import Materials, given_up, target_name
from interpedia_ingest.build.plan import ABANDONED, READY
from interpedia_ingest.build.repository import VersionRows
from interpedia_ingest.build.shard import make_spills, open_verified
from interpedia_ingest.build.watching import in_thread, watch
from interpedia_ingest.copying import allow_long_statements
from interpedia_ingest.dashboards.errors import BadSpill
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.result import FeatureRow, feature_row
from interpedia_shared.db.base import JSON
from interpedia_shared.jobs import TaskContext


class ReduceTask:
    """Handler of `reduce`."""

    def __init__(self, materials: Materials) -> None:
        self._materials = materials

    async def __call__(self, context: TaskContext) -> JSON | None:
        """Replace the rows of one range of features; nobody reads them before the version is published."""
        (rows,) = await self._materials.versions(context, [context.params["version"]])
        if rows.version.state == READY:
            return None
        features = range(context.params["first"], context.params["stop"])
        try:
            reducer = await self._reducer(context, rows)
        except BadSpill:
            # A disk lost what the shards wrote: their tasks are done, so it is up to us to write it again.
            await self._mend(context, rows)
            reducer = await self._reducer(context, rows)

        def work() -> list[FeatureRow]:
            return [feature_row(result) for result in reducer.reduce(features, watch(context))]

        results = await in_thread(context, work)
        async with context.database.write() as session:
            await allow_long_statements(session)
            # Much may have happened since the task began: an attempt that was given up comes too late.
            version = await repository.lock_version(session, rows.version.id)
            if version is None or version.state == ABANDONED:
                raise given_up(rows)
            if version.state == READY:
                return None
            context.check()
            await repository.replace_features(session, rows.version.id, features, results)
        return None

    async def _reducer(self, context: TaskContext, rows: VersionRows) -> Reducer:
        async with context.database.read() as session:
            shards = await repository.read_shards(session, context.job_id)
        folder = self._materials.spill_folder(context.job_id)
        name = target_name(rows.version.id)
        return await self._materials.reducer(context, rows, lambda: open_verified(folder, name, shards))

    async def _mend(self, context: TaskContext, rows: VersionRows) -> None:
        async with context.database.read() as session:
            shards = await repository.read_shards(session, context.job_id)
        await make_spills(self._materials, context, [rows], shards)
