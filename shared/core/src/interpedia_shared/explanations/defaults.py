"""Which of a feature's explanations is shown.

The rule, for each feature:

1. The evidence of an explanation is its headline scores that came out (`status` ok, all items), the newest
   of each scorer. `embedding`, which is blind to much, and `redteam`, whose texts somebody chose, are none.
   How far a score is above chance is `(ci_low - floor) / (1 - chance)`: the lower end of its interval less
   the same score of another feature's text, or less chance where that text does worse, as a share of the way
   from chance to 1. Without another text's score it is not known.
2. `best_score` is the value of the score that is furthest above chance.
3. The default is the explanation whose best score is furthest above chance, if that is above 0 at all.
4. If none is: the newest text by a person; else the newest that claims a pattern; else the newest.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from interpedia_shared.db.session import WriteSession

# One writer an SAE at a time: two that each move the default of one feature would meet at its unique index.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('explanation.is_default'), :sae_id)")

IS_EVIDENCE = """
    score.is_headline AND score.status = 'ok' AND score.stratum = 'all' AND score.value IS NOT NULL
    AND score.scorer NOT IN ('embedding', 'redteam')
"""
"""SQL: whether a row of `score` is evidence."""
_CHANCE = "CASE WHEN score.metric IN ('balanced_accuracy', 'auroc') THEN 0.5 ELSE 0.0 END"
ABOVE_CHANCE = (
    f"CASE WHEN score.baseline IS NOT NULL THEN (score.ci_low - greatest(score.baseline, {_CHANCE}))"
    f" / (1 - {_CHANCE}) END"
)
"""SQL: how far a row of `score` is above chance."""
_RANKED = f"""
WITH evidence AS (
    SELECT DISTINCT ON (score.explanation_id, score.scorer)
        score.explanation_id, score.value, {ABOVE_CHANCE} AS above_chance
    FROM explanation JOIN score ON score.explanation_id = explanation.id
    WHERE explanation.sae_id = :sae_id AND explanation.feature_idx = ANY(:indices) AND {IS_EVIDENCE}
    ORDER BY score.explanation_id, score.scorer, score.id DESC
), best AS (
    SELECT DISTINCT ON (explanation_id) explanation_id, value, above_chance
    FROM evidence ORDER BY explanation_id, above_chance DESC NULLS LAST, value DESC
), ranked AS (
    SELECT explanation.id, best.value AS best_score, row_number() OVER (
        PARTITION BY explanation.feature_idx
        ORDER BY
            CASE WHEN best.above_chance > 0 THEN best.above_chance END DESC NULLS LAST,
            explanation.method = 'human' DESC,
            coalesce(explanation.hypothesis ->> 'no_pattern', 'false') = 'true',
            explanation.id DESC
    ) = 1 AS is_first
    FROM explanation LEFT JOIN best ON best.explanation_id = explanation.id
    WHERE explanation.sae_id = :sae_id AND explanation.feature_idx = ANY(:indices)
)
"""
_LEAVE = text(
    _RANKED
    + """
UPDATE explanation SET best_score = ranked.best_score, is_default = explanation.is_default AND ranked.is_first
FROM ranked WHERE ranked.id = explanation.id
    AND (explanation.best_score IS DISTINCT FROM ranked.best_score
        OR explanation.is_default AND NOT ranked.is_first)
"""
)
_TAKE = text(
    _RANKED
    + """
UPDATE explanation SET is_default = true
FROM ranked WHERE ranked.id = explanation.id AND ranked.is_first AND NOT explanation.is_default
"""
)


async def lock_defaults(session: WriteSession, sae_id: int) -> None:
    """Wait for whoever is choosing among an SAE's explanations.

    Before locking rows of explanations in a transaction that will choose: the other way round is a deadlock.
    """
    await session.execute(_LOCK, {"sae_id": sae_id})


async def choose_default(session: WriteSession, sae_id: int, indices: Sequence[int]) -> None:
    """Set `is_default` and `best_score` of all explanations of some features, by the rule of this module.

    To be called in the transaction that adds, changes or deletes explanations or scores of these features,
    after it has done so. Rows that do not change are not written; objects loaded before keep old values.
    """
    if not indices:
        return
    await session.flush()
    await lock_defaults(session, sae_id)
    named = {"sae_id": sae_id, "indices": sorted(set(indices))}
    # The old default goes first: the unique index looks at every row as it is written.
    await session.execute(_LEAVE, named)
    await session.execute(_TAKE, named)
