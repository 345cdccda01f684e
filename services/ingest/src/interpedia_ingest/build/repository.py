"""SQL of builds."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from interpedia_ingest.build.plan import SHARD
from interpedia_ingest.copying import copy_rows
from interpedia_ingest.dashboards.result import FeatureRow
from interpedia_shared.db.models import SAE, Corpus, Feature, JobTask, LanguageModel, SAEVersion
from interpedia_shared.db.session import ReadSession, WriteSession

_COLUMNS = tuple(field.name for field in dataclasses.fields(FeatureRow))
_CHUNK = 1_024


@dataclass(frozen=True, slots=True)
class VersionRows:
    """A version with everything it belongs to."""

    version: SAEVersion
    sae: SAE
    corpus: Corpus
    model: LanguageModel


async def read_versions(session: ReadSession, ids: Sequence[int]) -> list[VersionRows]:
    """Versions in ascending order of their ids; those that are gone are left out."""
    rows = await session.execute(
        select(SAEVersion, SAE, Corpus, LanguageModel)
        .join(SAE, SAE.id == SAEVersion.sae_id)
        .join(Corpus, Corpus.id == SAEVersion.corpus_id)
        .join(LanguageModel, LanguageModel.id == SAE.model_id)
        .where(SAEVersion.id.in_(ids))
        .order_by(SAEVersion.id)
    )
    return [VersionRows(*row) for row in rows]


async def read_shards(session: ReadSession, job_id: uuid.UUID) -> list[range]:
    """The rows of each shard of a job, in order: whatever the settings were when it was planned."""
    params = await session.scalars(
        select(JobTask.params)
        .where(JobTask.job_id == job_id, JobTask.kind == SHARD)
        .order_by(JobTask.ordinal)
    )
    return [range(one["first"], one["stop"]) for one in params]


async def lock_version(session: WriteSession, version_id: int) -> SAEVersion | None:
    """One version, ours until the transaction ends."""
    return await session.scalar(select(SAEVersion).where(SAEVersion.id == version_id).with_for_update())


async def lock_sae(session: WriteSession, sae_id: int) -> SAE | None:
    """One SAE, ours until the transaction ends. Lock it before its versions, as publishing does."""
    return await session.scalar(select(SAE).where(SAE.id == sae_id).with_for_update(key_share=True))


async def replace_features(
    session: WriteSession, version_id: int, features: range, rows: Sequence[FeatureRow]
) -> None:
    """Put the rows of a range of features in place of whatever is there."""
    await session.execute(
        delete(Feature).where(
            Feature.sae_version_id == version_id,
            Feature.idx >= features.start,
            Feature.idx < features.stop,
        )
    )
    await copy_rows(
        session,
        "feature",
        ("sae_version_id", *_COLUMNS),
        ((version_id, *(getattr(row, name) for name in _COLUMNS)) for row in rows),
    )


async def delete_features(session: WriteSession, version_id: int) -> None:
    """Remove all rows of a version."""
    await session.execute(delete(Feature).where(Feature.sae_version_id == version_id))


async def count_features(session: WriteSession, version_id: int) -> int:
    """Rows of a version."""
    query = select(func.count()).select_from(Feature).where(Feature.sae_version_id == version_id)
    return (await session.execute(query)).scalar_one()


async def iterate_features(session: WriteSession | ReadSession, version_id: int) -> AsyncIterator[FeatureRow]:
    """All rows of a version in order of their index, some at a time."""
    last = -1
    columns = [getattr(Feature, name) for name in _COLUMNS]
    while True:
        found = await session.execute(
            select(*columns)
            .where(Feature.sae_version_id == version_id, Feature.idx > last)
            .order_by(Feature.idx)
            .limit(_CHUNK)
        )
        rows = [FeatureRow(*row) for row in found]
        for row in rows:
            yield row
        if len(rows) < _CHUNK:
            return
        last = rows[-1].idx
