"""The explanation that is shown with a feature, wherever features are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text

from interpedia_gateway.features.schemas import Evidence, ShownExplanation
from interpedia_shared.db.session import ReadSession
from interpedia_shared.explanations import ABOVE_CHANCE, IS_EVIDENCE

# The default; and of its evidence the newest score of each scorer, of these the one furthest above chance.
_SHOWN = text(f"""
SELECT said.feature_idx, said.total, said.id, said.text, said.method, account.name AS author,
    said.best_score, best.*
FROM (
    SELECT DISTINCT ON (feature_idx) feature_idx, id, text, method, account_id, best_score,
        count(*) OVER (PARTITION BY feature_idx) AS total
    FROM explanation WHERE sae_id = :sae_id AND feature_idx = ANY(CAST(:indices AS int[]))
    ORDER BY feature_idx, is_default DESC, id DESC
) said JOIN account ON account.id = said.account_id
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT DISTINCT ON (scorer) scorer, metric, value, ci_low, ci_high, n, baseline, judge,
            {ABOVE_CHANCE} AS above_chance FROM score
        WHERE explanation_id = said.id AND {IS_EVIDENCE}
        ORDER BY scorer, score.id DESC
    ) newest ORDER BY above_chance DESC NULLS LAST, value DESC LIMIT 1
) best ON true
""")


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about a feature: the explanation that is shown, and how many there are."""

    default: ShownExplanation | None
    count: int


NOTHING_SAID = Said(None, 0)


async def said_of(session: ReadSession, sae_id: int, indices: Iterable[int]) -> dict[int, Said]:
    """What is said about some features of an SAE; those without explanations are left out."""
    wanted = sorted(set(indices))
    if not wanted:
        return {}
    rows = await session.execute(_SHOWN, {"sae_id": sae_id, "indices": wanted})
    return {row.feature_idx: Said(_shown(row), row.total) for row in rows}


def _shown(row: Row[Any]) -> ShownExplanation:
    return ShownExplanation(
        id=row.id,
        text=row.text,
        method=row.method,
        author=row.author,
        best_score=row.best_score,
        evidence=None if row.scorer is None else Evidence.model_validate(row),
    )
