"""The one statement of a search: ranked lists with the filters inside them, fused by reciprocal rank.

Source: Cormack, Clarke & Büttcher 2009 for the fusion, with their constant of 60.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interpedia_gateway.search.filters import Narrowed
from interpedia_gateway.search.vectors import TextVector
from interpedia_shared.ids import FeatureRef

CANDIDATES = (100, 200)
"""How long each list is: for up to half as many features in the answer."""
WORD_CANDIDATES = 1000
TOKEN_CANDIDATES = 200
"""Of a word or token that is everywhere, so many rows are ranked."""

SETTINGS = """
SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
    set_config('hnsw.ef_search', :ef_search, true),
    set_config('hnsw.max_scan_tuples', '40000', true),
    set_config('jit', 'off', true),
    -- planning takes longer than running, for the 64 partitions of `feature`: once a connection and statement
    set_config('plan_cache_mode', 'force_generic_plan', true),
    -- without the filters' values the planner cannot know how many rows pass: it is told which way to go
    set_config('enable_seqscan', :seqscan, true),
    set_config('enable_sort', :sort, true)
"""
FEW = 30_000
"""While no more explanations than this pass the filters, comparing all beats following the graph."""
_ESTIMATE = "EXPLAIN SELECT FROM explanation e WHERE e.embedding_model IS NOT NULL{filters}"

_NEAR = """
near AS (
    SELECT 'meaning' AS found_by, sae_id, feature_idx, id, 1 - distance AS similarity,
        row_number() OVER (ORDER BY distance, id) AS place
    FROM (
        SELECT e.sae_id, e.feature_idx, e.id, e.embedding <=> CAST(:vector AS halfvec(384)) AS distance
        FROM explanation e
        WHERE e.embedding_model = :embedding_model{filters}
        ORDER BY (e.embedding <=> CAST(:vector AS halfvec(384))){unordered} LIMIT {candidates}
    ) nearest
)"""
_WORDS = """
words AS (
    SELECT 'words' AS found_by, sae_id, feature_idx, id, NULL::float8 AS similarity,
        row_number() OVER (ORDER BY relevance DESC, best_score DESC NULLS LAST, id) AS place
    FROM (
        SELECT sae_id, feature_idx, id, best_score,
            ts_rank_cd(words, websearch_to_tsquery('english', :query), 1) AS relevance
        FROM (
            SELECT e.sae_id, e.feature_idx, e.id, e.best_score, e.words FROM explanation e
            WHERE e.words @@ websearch_to_tsquery('english', :query){filters} LIMIT {word_candidates}
        ) capped
        ORDER BY relevance DESC, best_score DESC NULLS LAST, id LIMIT {candidates}
    ) ranked
)"""
_TOKENS = """
tokens{n} AS (
    SELECT 'tokens' AS found_by, sae_id, idx AS feature_idx, NULL::bigint AS id, NULL::float8 AS similarity,
        row_number() OVER (ORDER BY weight DESC, density, sae_id, idx) AS place
    FROM (
        SELECT sae_id, idx, density, (
            SELECT sum(coalesce(1.0 / array_position(top_logit_ids, named), 0)
                + coalesce(1.0 / array_position(peak_token_ids, named), 0))
            FROM unnest(CAST(:ids{n} AS int[])) AS named
        ) AS weight
        FROM (
            SELECT p.id AS sae_id, f.idx, f.density, f.top_logit_ids, f.peak_token_ids
            FROM feature f JOIN places p ON p.version_id = f.sae_version_id
            WHERE f.sae_version_id = ANY(ARRAY(
                    SELECT version_id FROM places WHERE tokenizer_hash = :tokenizer{n}
                ))
                AND (f.top_logit_ids && CAST(:ids{n} AS int[]) OR f.peak_token_ids && CAST(:ids{n} AS int[]))
                {filters} LIMIT {token_candidates}
        ) capped
        ORDER BY weight DESC, density, sae_id, idx LIMIT {candidates}
    ) ranked
)"""
_REF = """
named AS (
    SELECT 'ref' AS found_by, p.id AS sae_id, f.idx AS feature_idx, NULL::bigint AS id,
        NULL::float8 AS similarity, 1::bigint AS place
    FROM feature f JOIN places p ON p.version_id = f.sae_version_id
    WHERE f.sae_version_id = (SELECT version_id FROM places WHERE model_id = :ref_model AND slug = :ref_sae)
        AND f.idx = :ref_index{filters}
)"""
_FUSED = """
listed AS ({lists}), once AS (
    SELECT DISTINCT ON (found_by, sae_id, feature_idx) * FROM listed
    ORDER BY found_by, sae_id, feature_idx, place
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY found_by ORDER BY place) AS rank FROM once
), fused AS (
    SELECT sae_id, feature_idx, sum(1.0 / (60 + rank))::float8 AS score,
        (array_agg(id ORDER BY rank) FILTER (WHERE id IS NOT NULL))[1] AS explanation_id,
        array_agg(found_by ORDER BY rank, found_by) AS found_by,
        array_agg(rank ORDER BY rank, found_by) AS ranks,
        max(similarity) AS similarity
    FROM ranked GROUP BY sae_id, feature_idx ORDER BY score DESC, sae_id, feature_idx LIMIT :limit
)
SELECT sae.model_id, sae.slug, fused.feature_idx, model.tokenizer_hash, fused.score, fused.found_by,
    fused.ranks, fused.similarity, f.density, f.max_activation, f.top_logit_ids, f.peak_token_ids,
    said.id, said.text, said.method, account.name AS author, said.is_default, said.best_score
FROM fused JOIN sae ON sae.id = fused.sae_id JOIN language_model model ON model.id = sae.model_id
LEFT JOIN LATERAL (
    SELECT density, max_activation, top_logit_ids, peak_token_ids FROM feature
    WHERE sae_version_id = sae.current_version_id AND idx = fused.feature_idx LIMIT 1
) f ON true
LEFT JOIN LATERAL (
    SELECT id, text, method, account_id, is_default, best_score FROM explanation
    WHERE explanation.sae_id = fused.sae_id AND explanation.feature_idx = fused.feature_idx
    ORDER BY explanation.id = fused.explanation_id DESC NULLS LAST, is_default DESC, id DESC LIMIT 1
) said ON true
LEFT JOIN account ON account.id = said.account_id
ORDER BY fused.score DESC, fused.sae_id, fused.feature_idx
"""


@dataclass(frozen=True)
class Asked:
    """What is looked for: each list that has something to look for is made.

    Attributes:
        compares_all: vectors of all explanations that pass the filters are compared, since they are few;
            else the graph is followed until enough of them pass.
    """

    limit: int
    query: str | None = None
    vector: TextVector | None = None
    token_ids: Mapping[str, list[int]] = field(default_factory=dict[str, list[int]])
    ref: FeatureRef | None = None
    compares_all: bool = False

    @property
    def candidates(self) -> int:
        """How long each list is."""
        return next((length for length in CANDIDATES if 2 * self.limit <= length), CANDIDATES[-1])

    def settings(self) -> dict[str, str]:
        """Parameters of `SETTINGS`."""
        seqscan, sort = ("off", "on") if self.compares_all else ("on", "off")
        return {"ef_search": str(4 * self.candidates), "seqscan": seqscan, "sort": sort}


def estimate_statement(narrowed: Narrowed) -> tuple[str, dict[str, Any]] | None:
    """SQL whose first line tells about how many explanations pass the filters; None without filters."""
    if not narrowed.is_filter:
        return None
    filters, values = _explanation_filters(narrowed)
    return _ESTIMATE.format(filters=filters), values


def search_statement(asked: Asked, narrowed: Narrowed) -> tuple[str, dict[str, Any]]:
    """SQL and its parameters.

    Lengths of lists are written into it: the planner must know that they are short.
    """
    said, said_values = _explanation_filters(narrowed)
    shown, shown_values = _feature_filters(narrowed)
    places, values = _places(narrowed)
    values |= said_values | shown_values | {"limit": asked.limit}
    tables, lists = [places], []
    length = {"candidates": asked.candidates}
    if asked.vector is not None:
        # no index has the order of a sum
        tables.append(_NEAR.format(filters=said, unordered=" + 0" * asked.compares_all, **length))
        lists.append("near")
        values |= {"vector": asked.vector.literal(), "embedding_model": asked.vector.model}
    if asked.query is not None:
        tables.append(_WORDS.format(filters=said, **length, word_candidates=WORD_CANDIDATES))
        lists.append("words")
        values["query"] = asked.query
    for number, (tokenizer, ids) in enumerate(asked.token_ids.items()):
        tables.append(_TOKENS.format(n=number, filters=shown, **length, token_candidates=TOKEN_CANDIDATES))
        lists.append(f"tokens{number}")
        values |= {f"ids{number}": ids, f"tokenizer{number}": tokenizer}
    if asked.ref is not None:
        tables.append(_REF.format(filters=shown))
        lists.append("named")
        ref = asked.ref
        values |= {"ref_model": ref.model, "ref_sae": ref.sae, "ref_index": min(ref.index, 2**31 - 1)}
    union = " UNION ALL ".join(f"SELECT * FROM {name}" for name in lists)
    return f"WITH {','.join(tables)},{_FUSED.format(lists=union)}", values


def _places(narrowed: Narrowed) -> tuple[str, dict[str, Any]]:
    """The SAEs that are searched; an unlisted one only where it is named."""
    values: dict[str, Any] = {}
    if narrowed.sae_ids is not None:
        condition = "sae.id = ANY(CAST(:sae_ids AS bigint[]))"
        values["sae_ids"] = narrowed.sae_ids
    else:
        condition = "(sae.visibility = 'public' OR sae.account_id = CAST(:caller_id AS bigint))"
        values["caller_id"] = narrowed.caller_id
    columns = "sae.id, sae.model_id, sae.slug, sae.current_version_id AS version_id, m.tokenizer_hash"
    source = "sae JOIN language_model m ON m.id = sae.model_id"
    return f"places AS MATERIALIZED (SELECT {columns} FROM {source} WHERE {condition})", values


def _explanation_filters(narrowed: Narrowed) -> tuple[str, dict[str, Any]]:
    """Conditions on a row `e` of `explanation`."""
    values: dict[str, Any] = {}
    if narrowed.sae_ids is not None:
        # of a list the planner expects ten, of one SAE it knows better
        one = " AND e.sae_id = (CAST(:sae_ids AS bigint[]))[1]"
        many = " AND e.sae_id = ANY(CAST(:sae_ids AS bigint[]))"
        found = [one if len(narrowed.sae_ids) == 1 else many]
        values["sae_ids"] = narrowed.sae_ids
    else:  # the hidden ones are few, and all others many
        found = [
            " AND e.sae_id <> ALL(ARRAY(SELECT id FROM sae WHERE visibility <> 'public'"
            " AND account_id IS DISTINCT FROM CAST(:caller_id AS bigint)))"
        ]
        values["caller_id"] = narrowed.caller_id
    found += _own_filters(narrowed, values)
    found += _density_filters("e", narrowed, values)
    return "".join(found), values


def _own_filters(narrowed: Narrowed, values: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if narrowed.author_id is not None:
        found.append(" AND e.account_id = :author_id")
        values["author_id"] = narrowed.author_id
    if narrowed.min_score is not None:
        found.append(" AND e.best_score >= :min_score")
        values["min_score"] = narrowed.min_score
    return found


def _density_filters(table: str, narrowed: Narrowed, values: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, sign, bound in (
        ("min_density", ">=", narrowed.min_density),
        ("max_density", "<=", narrowed.max_density),
    ):
        if bound is not None:
            found.append(f" AND {table}.density {sign} :{name}")
            values[name] = bound
    return found


def _feature_filters(narrowed: Narrowed) -> tuple[str, dict[str, Any]]:
    """Conditions on a row `f` of `feature` in a place `p`."""
    values: dict[str, Any] = {}
    found = _density_filters("f", narrowed, values)
    if narrowed.needs_explanation:
        own = "".join(_own_filters(narrowed, values))
        found.append(
            f" AND EXISTS (SELECT 1 FROM explanation e WHERE e.sae_id = p.id AND e.feature_idx = f.idx{own})"
        )
    return "".join(found), values
