"""Table `redteam_text`, and the explanation that is put to the test. SQL only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from interpedia_autointerp.explainers import Hypothesis
from interpedia_autointerp.llm.request import clean
from interpedia_autointerp.redteam.attempt import CORPUS, LLM, Attempt
from interpedia_shared.db.models import Account, Explanation, RedTeamText
from interpedia_shared.db.session import ReadSession, WriteSession

MAX_KEPT = 100


@dataclass(frozen=True)
class Round:
    """One round of one run against one version of the hypothesis."""

    run_id: uuid.UUID
    sae_id: int
    index: int
    number: int
    explanation_id: int


async def find(session: ReadSession | WriteSession, explanation_id: int) -> Explanation | None:
    """One explanation."""
    return await session.get(Explanation, explanation_id)


async def revision(session: ReadSession, run_id: uuid.UUID, parent: int) -> tuple[int, Hypothesis] | None:
    """The version that this run made of an explanation, if it came so far before."""
    row = await session.scalar(
        select(Explanation)
        .where(Explanation.run_id == run_id, Explanation.hypothesis["parent"].as_integer() == parent)
        .order_by(Explanation.id)
        .limit(1)
    )
    return None if row is None else (row.id, Hypothesis.from_json({**row.hypothesis, "text": row.text}))


async def account_name(session: ReadSession, account_id: int) -> str:
    """Who."""
    return await session.scalar(select(Account.name).where(Account.id == account_id)) or str(account_id)


async def kept_texts(
    session: ReadSession, sae_id: int, index: int, *, hypothesis: str, without: uuid.UUID
) -> list[Attempt]:
    """Texts that people tried this very hypothesis about the feature with, newest first.

    What a text is meant to do is by the hypothesis that it was written against: those of others are left out.
    """
    rows = await session.scalars(
        select(RedTeamText)
        .join(Explanation, Explanation.id == RedTeamText.explanation_id)
        .where(
            Explanation.text == hypothesis,
            RedTeamText.sae_id == sae_id,
            RedTeamText.feature_idx == index,
            RedTeamText.author.not_in((LLM, CORPUS)),
            RedTeamText.run_id != without,
        )
        .order_by(RedTeamText.id.desc())
        .limit(4 * MAX_KEPT)
    )
    found = {row.text: row for row in reversed(list(rows))}
    newest = list(reversed(found.values()))[:MAX_KEPT]
    return [Attempt(row.text, row.intent, "kept", row.author) for row in newest]  # pyright: ignore[reportArgumentType]


async def keep_round(session: WriteSession, where: Round, attempts: Sequence[Attempt]) -> None:
    """Store a round's texts; a round that runs again replaces what it stored."""
    await session.execute(
        delete(RedTeamText).where(RedTeamText.run_id == where.run_id, RedTeamText.round == where.number)
    )
    rows = [
        {
            "run_id": where.run_id,
            "sae_id": where.sae_id,
            "feature_idx": where.index,
            "explanation_id": where.explanation_id,
            "round": where.number,
            "intent": each.intent,
            "author": each.author,
            "pair": each.pair,
            "text": clean(each.text),
            "state": each.state,
            "tokens": [clean(token) for token in each.tokens],
            "activations": {"values": list(each.values)} if each.values else None,
            "max_activation": each.max,
            "quantile": each.quantile,
        }
        for each in attempts
    ]
    if rows:
        await session.execute(insert(RedTeamText), rows)
