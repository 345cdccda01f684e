"""From rows to what callers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interpedia_gateway.explanations.repository import ExplanationRow
from interpedia_gateway.explanations.schemas import (
    ExplanationDetail,
    ExplanationOut,
    ScoreOut,
    VerdictOut,
)
from interpedia_shared.db.models import Score, Verdict
from interpedia_shared.ids import FeatureRef


def explanation_out(row: ExplanationRow, scores: Sequence[Score]) -> ExplanationOut:
    """An explanation with its headline scores."""
    return ExplanationOut(**_columns(row), scores=[score_out(score) for score in scores])


def explanation_detail(
    row: ExplanationRow, scores: Sequence[Score], verdicts: Sequence[Verdict], n_verdicts: int
) -> ExplanationDetail:
    """An explanation with everything."""
    return ExplanationDetail(
        **_columns(row),
        scores=[score_out(score) for score in scores],
        verdicts=[_verdict(verdict) for verdict in verdicts],
        n_verdicts=n_verdicts,
    )


def score_out(score: Score) -> ScoreOut:
    """A score."""
    return ScoreOut(
        id=score.id,
        scorer=score.scorer,
        metric=score.metric,
        stratum=score.stratum,
        is_headline=score.is_headline,
        status=score.status,
        value=score.value,
        ci_low=score.ci_low,
        ci_high=score.ci_high,
        n=score.n,
        n_failed=score.n_failed,
        n_abstained=score.n_abstained,
        baseline=score.baseline,
        judge=score.judge,
        split_hash=score.split_hash,
        details=score.details,
        run=score.run_id,
        created_at=score.created_at,
    )


def _verdict(verdict: Verdict) -> VerdictOut:
    return VerdictOut(
        scorer=verdict.scorer,
        subject=verdict.subject,
        item=verdict.item,
        stratum=verdict.stratum,
        truth=verdict.truth,
        state=verdict.state,
        verdict=verdict.verdict,
        probability=verdict.probability,
        run=verdict.run_id,
    )


def _columns(row: ExplanationRow) -> dict[str, Any]:
    return {
        "ref": str(FeatureRef(row.model_id, row.slug, row.feature_idx)),
        "model": row.model_id,
        "sae": row.slug,
        "index": row.feature_idx,
        "id": row.id,
        "text": row.text,
        "method": row.method,
        "author": row.author,
        "is_default": row.is_default,
        "best_score": row.best_score,
        "hypothesis": row.hypothesis,
        "embedding_model": row.embedding_model,
        "run": row.run_id,
        "created_at": row.created_at,
    }
