"""Rank features of a text by their part in a metric."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from interpedia_engine.effects import AttributionPlan, AttributionResult, Case, attribute
from interpedia_inference.effects import dictionary_of, effect_cost, resolve_metric
from interpedia_inference.refusals import over_limit
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.visits.visit import Tokens, Visit
from interpedia_shared.contracts.live.effects import AttributedFeature, AttributeOut, AttributeRequest
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import Invalid

MAX_VALUES = 200_000
"""Numbers in one answer: k × tokens."""


async def attribute_metric(visit: Visit, body: AttributeRequest) -> AttributeOut:
    """Rank by gradient, then ablate the first ones for real.

    Raises:
        Invalid: an answer of several tokens, a corrupt text of another length, a position outside the text,
            or an answer that would be too large.
        Problem: see `Visit`.
    """
    limit = visit.max_effect_tokens
    tokens = await visit.tokenize(body.text, prepend_bos=body.prepend_bos, field="#/text", limit=limit)
    n_tokens = len(tokens.ids)
    if body.k * n_tokens > MAX_VALUES:
        raise over_limit("#/k", "k × tokens", limit=MAX_VALUES, value=body.k * n_tokens)
    case = Case(
        tuple(tokens.ids),
        resolve_metric(visit.model, body.metric, n_tokens),
        await _corrupt(visit, body, n_tokens),
    )
    held = await visit.borrow(body.saes_named())
    saes = list(held.values())
    plan = AttributionPlan(method=body.method, steps=body.steps, k=body.k, exact=min(body.exact, body.k))
    cost = effect_cost(visit.model, n_tokens, saes, passes=_passes(body), has_gradient=True)
    visit.charge(cost)
    dictionaries = [dictionary_of(sae) for sae in saes]
    result = await visit.call(lambda: attribute(visit.model, case, dictionaries, plan), work=cost.tokens)
    return await asyncio.to_thread(_written, visit, body, tokens, saes=saes, result=result)


def _passes(body: AttributeRequest) -> int:
    """Forward passes' worth of work, a backward pass counted as two."""
    gradient = 3 * body.steps if body.method == "integrated_gradients" else 3
    return 1 + gradient + int(body.corrupt_text is not None) + min(body.exact, body.k)


async def _corrupt(visit: Visit, body: AttributeRequest, n_tokens: int) -> tuple[int, ...] | None:
    if body.corrupt_text is None:
        return None
    corrupt = await visit.tokenize(
        body.corrupt_text,
        prepend_bos=body.prepend_bos,
        field="#/corrupt_text",
        limit=visit.max_effect_tokens,
    )
    if len(corrupt.ids) != n_tokens:
        raise Invalid.field(
            "#/corrupt_text",
            f"has {len(corrupt.ids)} tokens, but the text has {n_tokens}: patching needs as many",
            tokens=len(corrupt.ids),
            needed=n_tokens,
        )
    return tuple(corrupt.ids)


def _written(
    visit: Visit,
    body: AttributeRequest,
    tokens: Tokens,
    *,
    saes: Sequence[HeldSAE],
    result: AttributionResult,
) -> AttributeOut:
    return AttributeOut(
        tokens=visit.strings(tokens.ids),
        token_ids=tokens.ids,
        position=result.position,
        metric=result.metric,
        metric_corrupt=result.metric_corrupt,
        results=[
            AttributedFeature(
                ref=str(FeatureRef(body.model, saes[one.key.dictionary].slug, one.key.feature)),
                model=body.model,
                sae=saes[one.key.dictionary].slug,
                index=one.key.feature,
                attribution=one.attribution,
                by_position=one.by_position,
                max_activation_here=one.max_activation,
                exact=one.exact,
            )
            for one in result.results
        ],
        timings=visit.timings(),
        provenance=visit.provenance(bos=tokens.has_bos, saes=saes),
    )
