"""The `shard` task: one forward pass over some contexts for all SAEs of the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interpedia_engine.errors import EngineError
from interpedia_ingest.build.materials import Materials
from interpedia_ingest.build.repository import VersionRows
from interpedia_ingest.build.watching import in_thread, watch
from interpedia_ingest.dashboards.collect import collect_shard, spill_path
from interpedia_ingest.dashboards.errors import BadSpill
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.spill import Spill, open_spill
from interpedia_ingest.dashboards.target import Build, Target
from interpedia_ingest.dashboards.watch import Watch
from interpedia_shared.db.base import JSON
from interpedia_shared.jobs import TaskContext, TaskFailed


class ShardTask:
    """Handler of `shard`."""

    def __init__(self, materials: Materials) -> None:
        self._materials = materials

    async def __call__(self, context: TaskContext) -> JSON | None:
        """Write the spills of one shard; those that an earlier attempt finished are kept."""
        versions = await self._materials.versions(context, context.params["versions"])
        rows = range(context.params["first"], context.params["stop"])
        await make_spills(self._materials, context, versions, [rows])
        return None


async def make_spills(
    materials: Materials, context: TaskContext, versions: Sequence[VersionRows], shards: Sequence[range]
) -> None:
    """See to it that the spills of all `versions` and `shards` are there and whole.

    Raises:
        TaskFailed: a model or SAE cannot be loaded, or gives no finite numbers.
        TaskCancelled: the task is no longer wanted.
    """
    try:
        build = await materials.build(versions)
    except EngineError as error:
        raise TaskFailed(f"{error.field}: {error.detail}", type="bad-sae", title="SAE refused") from error
    selection = await materials.selection(context.database, versions[0])
    folder = materials.spill_folder(context.job_id)
    # Only a shard's own task reports its progress: a reduction that has to mend spills has other units.
    watcher = watch(context)
    if len(shards) > 1:
        watcher = Watch(should_cancel=watcher.should_cancel)
    for rows in shards:
        missing = await in_thread(context, lambda rows=rows: _missing(build, selection, folder, rows))
        if missing:
            partial = replace(build, targets=missing)
            await in_thread(
                context,
                lambda partial=partial, rows=rows: collect_shard(
                    partial, selection, rows=rows, out_dir=folder, watch=watcher
                ),
            )


def open_verified(folder: Path, name: str, shards: Sequence[range]) -> list[Spill]:
    """Open all spills of a version and read them through once.

    Raises:
        BadSpill: one is not there, cut or altered.
    """
    spills: list[Spill] = []
    for rows in shards:
        path = spill_path(folder, name, rows)
        try:
            spill = open_spill(path)
        except FileNotFoundError as error:
            raise BadSpill("path", f"{path.name} is not there") from error
        spill.verify()
        spills.append(spill)
    return spills


def _missing(build: Build, selection: Selection, folder: Path, rows: range) -> list[Target]:
    return [
        target
        for target in build.targets
        if not _is_whole(build, target, selection, folder=folder, rows=rows)
    ]


def _is_whole(build: Build, target: Target, selection: Selection, *, folder: Path, rows: range) -> bool:
    try:
        spill = open_spill(spill_path(folder, target.name, rows))
        spill.verify()
    except (FileNotFoundError, BadSpill):
        return False
    header = spill.header
    return (header.weights, header.settings, header.rows) == (
        target.weights,
        build.settings.digest(),
        selection.digest(rows.start, len(rows)),
    )
