"""What the tasks of a build work with: rows, contexts, model, SAEs, spills. Kept for the next task."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.hooks import parse_hook
from interpedia_engine.logit_lens import logit_effects, residual_directions
from interpedia_engine.models import LanguageModel, ModelSource
from interpedia_engine.saes import SAE
from interpedia_ingest.build import repository
from interpedia_ingest.build.plan import ABANDONED
from interpedia_ingest.build.repository import VersionRows
from interpedia_ingest.corpora.repository import read_contexts
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.selection import Selection, select_contexts
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.spill import Spill
from interpedia_ingest.dashboards.target import Build, Target
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.saes.checks import IDENTITY
from interpedia_ingest.shelf import Shelf
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import TaskContext, TaskFailed
from interpedia_shared.tokens import unpack_ids

_CONTEXTS_AT_ONCE = 4_096
_REDUCERS_KEPT = 2


class Materials:
    """Loads the materials of builds, and keeps those of the last ones."""

    def __init__(self, shelf: Shelf, folder: DataFolder) -> None:
        self._shelf = shelf
        self._folder = folder
        self._selection: tuple[tuple[int, int, int], Selection] | None = None
        self._reducers: OrderedDict[int, Reducer] = OrderedDict()

    def spill_folder(self, job_id: uuid.UUID) -> Path:
        """Where the spills of a job lie."""
        return self._folder.spills / str(job_id)

    async def versions(self, context: TaskContext, ids: Sequence[int]) -> list[VersionRows]:
        """The versions that a task is for.

        Raises:
            TaskFailed: one is gone, or was given up.
        """
        async with context.database.read() as session:
            found = await repository.read_versions(session, ids)
        if len(found) != len(set(ids)):
            raise TaskFailed("An SAE of this build was deleted.")
        for rows in found:
            if rows.version.state == ABANDONED:
                raise given_up(rows)
        return found

    async def build(self, versions: Sequence[VersionRows]) -> Build:
        """Model, SAEs and settings of versions of one job.

        Raises:
            EngineError: a model or an SAE cannot be loaded.
        """
        model = await self._model(versions[0])
        targets = [await self._target(rows, model) for rows in versions]
        return Build(model, targets, settings_of(versions[0]))

    async def selection(self, database: Database, rows: VersionRows) -> Selection:
        """The contexts of a build with their token ids."""
        corpus, n_contexts, seed = rows.corpus, rows.version.n_contexts, settings_of(rows).seed
        key = (corpus.id, n_contexts, seed)
        if self._selection is not None and self._selection[0] == key:
            return self._selection[1]
        numbers = select_contexts(
            n_contexts=corpus.n_contexts,
            n_tokens=n_contexts * corpus.context_length,
            context_length=corpus.context_length,
            seed=seed,
        )
        packed: list[bytes] = []
        async with database.read() as session:
            for first in range(0, len(numbers), _CONTEXTS_AT_ONCE):
                part: list[int] = numbers[first : first + _CONTEXTS_AT_ONCE].tolist()
                packed += await read_contexts(session, corpus.id, part)
        ids = unpack_ids(b"".join(packed), corpus.token_width)
        selection = Selection(numbers, np.reshape(ids, (len(numbers), corpus.context_length)))
        self._selection = (key, selection)
        return selection

    async def reducer(
        self, context: TaskContext, rows: VersionRows, open_spills: Callable[[], Sequence[Spill]]
    ) -> Reducer:
        """The reducer of a version; `open_spills` is only called when it is not here yet."""
        version_id = rows.version.id
        kept = self._reducers.get(version_id)
        if kept is not None:
            self._reducers.move_to_end(version_id)
            return kept
        selection = await self.selection(context.database, rows)
        model = await self._model(rows)
        target = await self._target(rows, model)
        sae = await self._sae(rows)
        settings = settings_of(rows)

        def make() -> Reducer:
            return Reducer(
                open_spills(),
                selection,
                settings=settings,
                weights=target.weights,
                decoder=None if rows.sae.architecture == IDENTITY else sae.W_dec,
                logit_effects=_lens(sae, target, model, final_norm_gain=settings.final_norm_gain),
            )

        reducer = await asyncio.to_thread(make)
        self._reducers[version_id] = reducer
        while len(self._reducers) > _REDUCERS_KEPT:
            self._reducers.popitem(last=False)
        return reducer

    def forget(self, version_id: int) -> None:
        """Let go of a version that is published: its spills are about to be removed."""
        self._reducers.pop(version_id, None)

    async def _model(self, rows: VersionRows) -> LanguageModel:
        return await self._shelf.model(ModelSource.from_dict(rows.model.source))

    async def _sae(self, rows: VersionRows) -> SAE:
        return await self._shelf.sae(rows.sae.config, rows.sae.weights_uri)

    async def _target(self, rows: VersionRows, model: LanguageModel) -> Target:
        return Target(
            name=target_name(rows.version.id),
            sae=await self._sae(rows),
            hook_in=parse_hook(rows.sae.hook, model.shape),
            hook_out=parse_hook(rows.sae.hook_out or rows.sae.hook, model.shape),
            weights=rows.sae.weights_sha256 or f"{rows.sae.architecture} {rows.sae.hook}",
        )


def given_up(rows: VersionRows) -> TaskFailed:
    """Why nothing may be added to an abandoned version."""
    return TaskFailed(
        f"This build of {rows.model.id}/{rows.sae.slug} was given up and swept, or the SAE was published "
        "again since. Publish the SAE again.",
        type="conflict",
        title="Conflict",
    )


def target_name(version_id: int) -> str:
    """Stem of a version's spill files."""
    return f"v{version_id}"


def settings_of(rows: VersionRows) -> DashboardSettings:
    """The settings that a version was ordered with."""
    return DashboardSettings.from_json(rows.version.settings)


def _lens(
    sae: SAE, target: Target, model: LanguageModel, *, final_norm_gain: bool
) -> Callable[[range], Tensor] | None:
    """The logit lens of an SAE; None where its output reaches the logits only through a non-linearity."""

    def directions(features: range) -> Tensor:
        return residual_directions(sae.decoder_rows(features.start, features.stop), target.hook_out, model)

    try:
        directions(range(1))
    except UnsupportedHook:
        return None
    return lambda features: logit_effects(directions(features), model, final_norm_gain)
