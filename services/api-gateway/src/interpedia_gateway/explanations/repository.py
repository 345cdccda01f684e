"""Rows of explanations, scores and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, func, literal, select, tuple_

from interpedia_gateway.catalogue.lookup import readable_by
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import SAE, Account, Explanation, Score, Verdict
from interpedia_shared.db.session import ReadSession, WriteSession

Session = ReadSession | WriteSession
ExplanationRow = Row[Any]

COLUMNS = (
    Explanation.id,
    Explanation.sae_id,
    Explanation.feature_idx,
    SAE.model_id,
    SAE.slug,
    SAE.visibility,
    Explanation.text,
    Explanation.method,
    Explanation.account_id,
    Account.name.label("author"),
    Explanation.is_default,
    Explanation.best_score,
    Explanation.hypothesis,
    Explanation.embedding_model,
    Explanation.run_id,
    Explanation.created_at,
)


def _joined() -> Select[*tuple[Any, ...]]:
    return (
        select(*COLUMNS)
        .join(SAE, SAE.id == Explanation.sae_id)
        .join(Account, Account.id == Explanation.account_id)
    )


async def of_feature(
    session: Session, sae_id: int, index: int, *, after: Sequence[int] | None, limit: int
) -> list[ExplanationRow]:
    """Explanations of a feature, the default first, then newest first; behind the one with key `after`."""
    key = tuple_(Explanation.is_default, Explanation.id)
    statement = _joined().where(Explanation.sae_id == sae_id, Explanation.feature_idx == index)
    if after is not None:
        statement = statement.where(key < tuple_(literal(bool(after[0])), literal(after[1])))
    statement = statement.order_by(Explanation.is_default.desc(), Explanation.id.desc()).limit(limit)
    return list(await session.execute(statement))


async def one(
    session: Session, explanation: int, caller: Caller | None, *, lock: bool = False
) -> ExplanationRow | None:
    """An explanation whose SAE the caller may see."""
    statement = _joined().where(Explanation.id == explanation, readable_by(caller))
    if lock:
        statement = statement.with_for_update(of=Explanation)
    return (await session.execute(statement)).one_or_none()


async def same_text(session: Session, sae_id: int, index: int, *, account_id: int, text: str) -> int | None:
    """The account's own explanation of the feature with this very text."""
    return await session.scalar(
        select(Explanation.id).where(
            Explanation.sae_id == sae_id,
            Explanation.feature_idx == index,
            Explanation.account_id == account_id,
            Explanation.text == text,
        )
    )


async def scores(
    session: Session, explanations: Sequence[int], *, headline_only: bool
) -> dict[int, list[Score]]:
    """Scores by explanation, newest first."""
    statement = select(Score).where(Score.explanation_id.in_(explanations)).order_by(Score.id.desc())
    if headline_only:
        statement = statement.where(Score.is_headline)
    found: dict[int, list[Score]] = {explanation: [] for explanation in explanations}
    for score in await session.scalars(statement):
        found[score.explanation_id].append(score)
    return found


async def verdicts(session: Session, explanation: int, limit: int) -> tuple[list[Verdict], int]:
    """Verdicts, newest first, and how many there are."""
    mine = Verdict.explanation_id == explanation
    statement = select(Verdict).where(mine).order_by(Verdict.id.desc()).limit(limit)
    rows = list(await session.scalars(statement))
    count = len(rows)
    if count == limit:
        count = await session.scalar(select(func.count()).select_from(Verdict).where(mine)) or 0
    return rows, count


async def is_judged(session: Session, explanation: int) -> bool:
    """Whether anything was found out about an explanation."""
    statement = select(
        select(Score.id).where(Score.explanation_id == explanation).exists()
        | select(Verdict.id).where(Verdict.explanation_id == explanation).exists()
    )
    return bool(await session.scalar(statement))
