"""Explanations that runs make. SQL only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from interpedia_autointerp.explainers import Hypothesis
from interpedia_shared.db.models import Explanation
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.explanations import NewExplanation, add_explanations


@dataclass(frozen=True)
class Maker:
    """Who explains: one run of one account on one SAE's build."""

    run_id: uuid.UUID
    account_id: int
    method: str
    sae_id: int


@dataclass(frozen=True)
class Made:
    """What was found about one feature, and on which material."""

    index: int
    hypotheses: tuple[Hypothesis, ...]
    split_hash: str


async def explained(
    session: ReadSession | WriteSession, run_id: uuid.UUID, sae_id: int, indices: Sequence[int]
) -> set[int]:
    """Features that the run has explained already."""
    rows = await session.scalars(
        select(Explanation.feature_idx).where(
            Explanation.run_id == run_id, Explanation.sae_id == sae_id, Explanation.feature_idx.in_(indices)
        )
    )
    return set(rows)


async def explained_by(
    session: ReadSession | WriteSession, run_ids: Sequence[uuid.UUID]
) -> set[tuple[int, int]]:
    """(SAE, feature) of everything that these runs explained."""
    rows = await session.execute(
        select(Explanation.sae_id, Explanation.feature_idx).where(Explanation.run_id.in_(run_ids))
    )
    return {(sae_id, index) for sae_id, index in rows}


async def keep(session: WriteSession, maker: Maker, found: Sequence[Made]) -> None:
    """Store what was found, once: a feature that the run has explained stays as it is.

    A second worker that was thought dead may write too; the lock makes the two follow one another.
    """
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(str(maker.run_id)))))
    there = await explained(session, maker.run_id, maker.sae_id, [each.index for each in found])
    rows = [
        NewExplanation(
            each.index,
            hypothesis.text,
            maker.method,
            maker.account_id,
            maker.run_id,
            {**hypothesis.to_json(), "split_hash": each.split_hash},
        )
        for each in found
        if each.index not in there
        for hypothesis in each.hypotheses
    ]
    await add_explanations(session, maker.sae_id, rows)
