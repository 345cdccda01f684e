"""Rows of features, contexts and documents: columns only, no entities, since blobs go by here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from interpedia_gateway.arrays import one_of
from interpedia_gateway.catalogue.lookup import CorpusPlace
from interpedia_gateway.features.filters import SUMMARY_COLUMNS, SummaryColumns
from interpedia_shared.db.models import SAE, Context, CorpusDocument, Feature
from interpedia_shared.db.session import ReadSession
from interpedia_shared.tokens import unpack_ids


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """The columns of `feature` that lists show."""

    idx: int
    density: float
    n_active_tokens: int
    max_activation: float
    mean_activation: float
    top_logit_ids: list[int]
    peak_token_ids: list[int]


@dataclass(frozen=True, slots=True)
class FeatureRow(SummaryRow):
    """A whole row of `feature`."""

    peak_context: int | None
    peak_position: int | None
    stats: bytes
    examples: bytes


@dataclass(frozen=True, slots=True)
class ContextRow:
    """One context and the document it was cut from."""

    ids: NDArray[np.uint32]  # [context_length]
    token_offset: int
    document: str | None
    source: str | None
    licence: str | None


_ALL_COLUMNS = (
    *SUMMARY_COLUMNS,
    Feature.peak_context,
    Feature.peak_position,
    Feature.stats,
    Feature.examples,
)


async def summaries(session: ReadSession, statement: SummaryColumns) -> list[SummaryRow]:
    """Run a statement over `SUMMARY_COLUMNS`."""
    return [SummaryRow(*row) for row in await session.execute(statement)]


async def summaries_of(
    session: ReadSession, version_id: int, indices: Iterable[int]
) -> dict[int, SummaryRow]:
    """Summaries of some features of one version, by index."""
    statement = select(*SUMMARY_COLUMNS).where(
        Feature.sae_version_id == version_id, one_of(Feature.idx, indices)
    )
    return {row.idx: row for row in await summaries(session, statement)}


async def feature(session: ReadSession, version_id: int, index: int) -> FeatureRow | None:
    """One feature of one version."""
    statement = select(*_ALL_COLUMNS).where(Feature.sae_version_id == version_id, Feature.idx == index)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else _whole(row)


async def features_of(session: ReadSession, version_id: int, indices: Iterable[int]) -> dict[int, FeatureRow]:
    """Some features of one version, by index."""
    statement = select(*_ALL_COLUMNS).where(
        Feature.sae_version_id == version_id, one_of(Feature.idx, indices)
    )
    return {row.idx: _whole(row) for row in await session.execute(statement)}


async def features_from(session: ReadSession, version_id: int, first: int, limit: int) -> list[FeatureRow]:
    """Whole rows in the order of their index, from `first` on."""
    statement = (
        select(*_ALL_COLUMNS)
        .where(Feature.sae_version_id == version_id, Feature.idx >= first)
        .order_by(Feature.idx)
        .limit(limit)
    )
    return [_whole(row) for row in await session.execute(statement)]


def _whole(row: Sequence[Any]) -> FeatureRow:
    return FeatureRow(*row)


async def contexts(session: ReadSession, corpus: CorpusPlace, wanted: Iterable[int]) -> dict[int, ContextRow]:
    """Contexts of one corpus by row number, with their documents."""
    statement = (
        select(
            Context.idx,
            Context.tokens,
            Context.token_offset,
            CorpusDocument.name,
            CorpusDocument.source,
            CorpusDocument.licence,
        )
        .outerjoin(
            CorpusDocument,
            (CorpusDocument.corpus_id == Context.corpus_id) & (CorpusDocument.idx == Context.document_idx),
        )
        .where(Context.corpus_id == corpus.id, one_of(Context.idx, wanted))
    )
    return {
        index: ContextRow(unpack_ids(packed, corpus.token_width), offset, name, source, licence)
        for index, packed, offset, name, source, licence in await session.execute(statement)
    }


async def hooks(session: ReadSession, sae_id: int) -> tuple[str, str | None]:
    """Where an SAE reads, and where it writes if that is another place."""
    row = (await session.execute(select(SAE.hook, SAE.hook_out).where(SAE.id == sae_id))).one()
    return row[0], row[1]
