"""Explanations to be scored, and what came of it. SQL only."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Select, func, insert, select

from interpedia_autointerp.explainers import Hypothesis
from interpedia_autointerp.scorers import ScoreValue, Verdict
from interpedia_shared.db.models import SAE, Explanation, Score
from interpedia_shared.db.models import Verdict as VerdictRow
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.ids import FeatureRef

PARTNERS, FEW_PARTNERS = 256, 8
CHANGED = "the text was changed meanwhile"
_NOT_STORED = ("values", "reason")


@dataclass(frozen=True)
class Scorable:
    """An explanation as scorers take it."""

    id: int
    feature: FeatureRef
    sae_id: int
    method: str
    hypothesis: Hypothesis


async def explanations(
    session: ReadSession,
    *,
    ids: Sequence[int] = (),
    run_ids: Sequence[uuid.UUID] = (),
    sae_id: int | None = None,
    indices: Sequence[int] = (),
) -> list[Scorable]:
    """By id; or those of runs on features of one SAE. In the order of features."""
    statement = select(Explanation, SAE.model_id, SAE.slug).join(SAE, SAE.id == Explanation.sae_id)
    if ids:
        statement = statement.where(Explanation.id.in_(ids))
    else:
        statement = statement.where(
            Explanation.run_id.in_(run_ids),
            Explanation.sae_id == sae_id,
            Explanation.feature_idx.in_(indices),
        )
    rows = await session.execute(statement.order_by(Explanation.feature_idx, Explanation.id))
    return [_scorable(row, model, sae) for row, model, sae in rows]


async def partners(
    session: ReadSession, sae_id: int, method: str, *, before: int
) -> dict[FeatureRef, Hypothesis]:
    """Explanations of one SAE by one method with ids up to `before`: the same at every attempt.

    Where a method has explained fewer than FEW_PARTNERS features, as a person may have, those of all other
    methods are among them: one text would be everybody's baseline, and the first would have none.
    """
    statement = (
        select(Explanation, SAE.model_id, SAE.slug)
        .join(SAE, SAE.id == Explanation.sae_id)
        .where(Explanation.sae_id == sae_id, Explanation.id <= before)
        .order_by(Explanation.id.desc())
        .limit(PARTNERS)
    )
    own = await _by_feature(session, statement.where(Explanation.method == method))
    if len(own) >= FEW_PARTNERS:
        return own
    return await _by_feature(session, statement.where(Explanation.method != method)) | own


async def _by_feature(
    session: ReadSession, statement: Select[Explanation, str, str]
) -> dict[FeatureRef, Hypothesis]:
    rows = await session.execute(statement)
    found = [_scorable(row, model, sae) for row, model, sae in rows]
    return {each.feature: each.hypothesis for each in reversed(found) if not each.hypothesis.no_pattern}


def _scorable(row: Explanation, model: str, sae: str) -> Scorable:
    hypothesis = Hypothesis.from_json({**row.hypothesis, "text": row.text})
    return Scorable(row.id, FeatureRef(model, sae, row.feature_idx), row.sae_id, row.method, hypothesis)


async def scored(
    session: ReadSession | WriteSession, run_ids: Iterable[uuid.UUID], explanation_ids: Sequence[int]
) -> set[tuple[uuid.UUID, int]]:
    """(run, explanation) of what the runs have scored already, however it came out."""
    rows = await session.execute(
        select(Score.run_id, Score.explanation_id)
        .where(Score.run_id.in_(list(run_ids)), Score.explanation_id.in_(explanation_ids))
        .distinct()
    )
    return {(run_id, explanation_id) for run_id, explanation_id in rows}


async def well_scored(session: ReadSession | WriteSession, run_ids: Sequence[uuid.UUID]) -> set[int]:
    """Explanations with a headline score that is ok by one of the runs."""
    rows = await session.scalars(
        select(Score.explanation_id).where(Score.run_id.in_(run_ids), Score.is_headline, Score.status == "ok")
    )
    return set(rows)


async def keep(
    session: WriteSession,
    run_id: uuid.UUID,
    explanation_id: int,
    *,
    text: str,
    values: Sequence[ScoreValue],
    verdicts: Sequence[Verdict],
) -> bool:
    """Store what one scorer found on `text`, once; an explanation that was deleted meanwhile is passed over.

    Returns:
        False when the explanation has another text by now: then nothing is stored.
    """
    await session.execute(
        select(func.pg_advisory_xact_lock(func.hashtext(str(run_id)), explanation_id % 2**31))
    )
    # whoever edits a text holds the row too, and finds the score when it is theirs
    there = await session.scalar(
        select(Explanation.text).where(Explanation.id == explanation_id).with_for_update(key_share=True)
    )
    if there is None or (run_id, explanation_id) in await scored(session, [run_id], [explanation_id]):
        return True
    if there != text:
        return False
    names = {"run_id": run_id, "explanation_id": explanation_id}
    if verdicts:
        await session.execute(insert(VerdictRow), [{**_row(each), **names} for each in verdicts])
    await session.execute(insert(Score), [{**asdict(each), **names} for each in values])
    return True


def _row(verdict: Verdict) -> dict[str, object]:
    return {name: value for name, value in asdict(verdict).items() if name not in _NOT_STORED}
