"""Rank the features that a text activates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_inference.admission.cost import reading_cost
from interpedia_inference.compute.contract import AllFeatures, ReadJob, SparseValues
from interpedia_inference.refusals import check_positions, over_limit
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.top.ranking import (
    Flags,
    Floats,
    Ranked,
    Sparse,
    rank_at_each,
    rank_by_maximum,
    rank_by_sum,
    values_of,
)
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.activations import TopAtToken, TopFeature, TopOut, TopRequest
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import Invalid

MAX_RANKED = 20_000
"""Features in one answer: k, times the tokens when they are ranked at each token."""
MAX_VALUES = 200_000
"""Activations in one answer when every feature comes with its value at every token."""


async def top_features(visit: Visit, body: TopRequest) -> TopOut:
    """Read the text once for all SAEs, filter, rank.

    Raises:
        Invalid: a limit, a position, or a density filter on an SAE without dashboards.
        Problem: see `Visit`.
    """
    tokens = await visit.tokenize(body.text, prepend_bos=body.prepend_bos, field="#/text")
    check_size(body, len(tokens.ids))
    counted = _counted(visit, body, tokens.ids)
    held = await visit.borrow(body.saes_named())
    allowed = await _allowed(visit, body, held)
    saes = list(held.values())
    job = ReadJob(tokens.ids, [AllFeatures(sae) for sae in saes], counted=counted)
    visit.charge(reading_cost(visit.model.shape, [job]))
    found = await visit.read(job)
    parts = [_sparse(sae, values, flags) for sae, values, flags in zip(saes, found, allowed, strict=True)]
    text = Text(body.model, [sae.slug for sae in saes], visit.strings(tokens.ids), counted)
    results, by_token = await asyncio.to_thread(rank, body, parts, text)
    return TopOut(
        tokens=text.tokens,
        token_ids=tokens.ids,
        results=results,
        by_token=by_token,
        timings=visit.timings(),
        provenance=visit.provenance(bos=tokens.has_bos, saes=saes),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """What names need: the model, the SAEs in order, the tokens, and which of them count."""

    model: str
    saes: Sequence[str]
    tokens: list[str]
    counted: Flags


def check_size(body: TopRequest, n_tokens: int) -> None:
    """Refuse an answer that would be too large, before anything is computed.

    Raises:
        Invalid: names the limit and the value.
    """
    per_token = body.by == "token"
    n_ranked = body.k * n_tokens if per_token else body.k
    if n_ranked > MAX_RANKED:
        raise over_limit("#/k", "k × tokens", limit=MAX_RANKED, value=n_ranked)
    if body.with_values and n_ranked * n_tokens > MAX_VALUES:
        what = "k × tokens × tokens" if per_token else "k × tokens"
        raise over_limit("#/with_values", what, limit=MAX_VALUES, value=n_ranked * n_tokens)


def rank(
    body: TopRequest, parts: Sequence[Sparse], text: Text
) -> tuple[list[TopFeature], list[TopAtToken] | None]:
    """Rank, and write the results out: over the text, or at each token."""
    if body.by == "token":
        ranked = rank_at_each(parts, text.counted, body.k)
        return [], [
            TopAtToken(position=position, token=text.tokens[position], top=_named(body, parts, text, one))
            for position, one in enumerate(ranked)
        ]
    ranks = rank_by_sum if body.by == "positions" else rank_by_maximum
    return _named(body, parts, text, ranks(parts, text.counted, body.k)), None


def _named(body: TopRequest, parts: Sequence[Sparse], text: Text, ranked: Ranked) -> list[TopFeature]:
    rows: list[list[float | None]] | list[None] = [None] * len(ranked)
    if body.with_values:
        rows = _rows(values_of(parts, ranked, len(text.tokens)), body, text)
    saes: list[int] = ranked.sae.tolist()
    features: list[int] = ranked.feature.tolist()
    values: list[float] = ranked.value.tolist()
    positions: list[int] = ranked.position.tolist()
    return [
        TopFeature(
            ref=str(FeatureRef(text.model, text.saes[sae], feature)),
            model=text.model,
            sae=text.saes[sae],
            index=feature,
            value=value,
            position=position,
            token=text.tokens[position],
            values=row,
        )
        for sae, feature, value, position, row in zip(saes, features, values, positions, rows, strict=True)
    ]


def _rows(table: Floats, body: TopRequest, text: Text) -> list[list[float | None]]:
    """Values at every token that was read; null where BOS was ignored. `positions` choose only the rank."""
    if body.by == "positions":
        return table.tolist()
    silent = np.flatnonzero(~text.counted).tolist()
    rows: list[list[float | None]] = table.tolist()
    for row in rows:
        for position in silent:
            row[position] = None
    return rows


def _counted(visit: Visit, body: TopRequest, ids: Sequence[int]) -> Flags:
    """Which positions count: not BOS when it is ignored, and only those named.

    Raises:
        Invalid: a position is outside the text, or is an ignored BOS.
    """
    flags = visit.counted(ids, ignore_bos=body.ignore_bos)
    counted = np.ones(len(ids), dtype=np.bool_) if flags is None else flags
    if body.positions is None:
        return counted
    check_positions(body.positions, len(ids))
    for number, position in enumerate(body.positions):
        if not counted[position]:
            detail = f"position {position} is BOS, which ignore_bos leaves out"
            raise Invalid.field(f"#/positions/{number}", detail)
    chosen = np.zeros(len(ids), dtype=np.bool_)
    chosen[body.positions] = True
    return chosen


async def _allowed(
    visit: Visit, body: TopRequest, held: dict[str, HeldSAE]
) -> list[NDArray[np.bool_] | None]:
    """Which features of each SAE pass the density filters; None where there is no filter.

    Raises:
        Invalid: a filter is given and an SAE has no stored densities.
    """
    if body.min_density is None and body.max_density is None:
        return [None] * len(held)
    field = "#/max_density" if body.min_density is None else "#/min_density"
    flags: list[NDArray[np.bool_] | None] = []
    for slug, sae in held.items():
        if sae.version_id is None:
            raise Invalid.field(field, f"{slug} has no dashboards yet, so its densities are not known")
        density = (await visit.stored.columns(sae.version_id, sae.sae.d_sae)).density
        low = 0.0 if body.min_density is None else body.min_density
        high = 1.0 if body.max_density is None else body.max_density
        flags.append((density >= low) & (density <= high))
    return flags


def _sparse(sae: HeldSAE, values: object, allowed: NDArray[np.bool_] | None) -> Sparse:
    assert isinstance(values, SparseValues)
    return Sparse(sae.sae.d_sae, values.position, values.feature, values.value.astype(np.float64), allowed)
