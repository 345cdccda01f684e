"""Run a text with and without a set of features."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interpedia_engine.effects import Ablated, AblationPlan, AblationResult, Shift, ablate
from interpedia_inference.effects import answer_names, dictionary_of, effect_cost, resolve_metric
from interpedia_inference.refusals import check_positions
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.visits.visit import Tokens, Visit
from interpedia_shared.contracts.live.effects import (
    AblateOut,
    AblateRequest,
    MetricEffect,
    TokenEffect,
    TokenShift,
)
from interpedia_shared.contracts.live.requests import FeatureAt
from interpedia_shared.problems import Invalid


async def ablate_features(visit: Visit, body: AblateRequest) -> AblateOut:
    """Take the features out together and compare what the model says.

    Raises:
        Invalid: a position outside the text, a feature named twice, an answer of several tokens, or a mean
            that is not known.
        Problem: see `Visit`.
    """
    limit = visit.max_effect_tokens
    tokens = await visit.tokenize(body.text, prepend_bos=body.prepend_bos, field="#/text", limit=limit)
    resample: tuple[int, ...] | None = None
    if body.resample_text is not None:
        other = await visit.tokenize(
            body.resample_text, prepend_bos=body.prepend_bos, field="#/resample_text", limit=limit
        )
        resample = tuple(other.ids)
    check_positions(body.positions or (), len(tokens.ids))
    _refuse_repeats(body.features)
    metric = None
    if body.metric is not None:
        metric = resolve_metric(visit.model, body.metric, len(tokens.ids))
    held = await visit.borrow(body.saes_named())
    visit.check_features(held, body.features)
    ablated = [await _ablated(visit, body, sae) for sae in held.values()]
    plan = AblationPlan(
        method=body.method,
        resample_tokens=resample,
        seed=body.seed,
        positions=None if body.positions is None else tuple(sorted(set(body.positions))),
        metric=metric,
        k=body.k,
    )
    cost = effect_cost(visit.model, len(tokens.ids), list(held.values()), passes=3)
    cost += effect_cost(visit.model, len(resample or ()), list(held.values()), passes=1)
    visit.charge(cost)
    result = await visit.call(lambda: ablate(visit.model, tokens.ids, ablated, plan), work=cost.tokens)
    return await asyncio.to_thread(_written, visit, _Read(body, tokens, list(held.values())), result)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What was read of the request."""

    body: AblateRequest
    tokens: Tokens
    saes: Sequence[HeldSAE]


def _refuse_repeats(features: Sequence[FeatureAt]) -> None:
    seen: set[tuple[str, int]] = set()
    for number, at in enumerate(features):
        if (at.sae, at.feature) in seen:
            raise Invalid.field(f"#/features/{number}", f"{at.sae}/{at.feature} is named twice")
        seen.add((at.sae, at.feature))


async def _ablated(visit: Visit, body: AblateRequest, sae: HeldSAE) -> Ablated:
    """The request's features of one SAE, with their means over all corpus tokens where those are needed.

    Raises:
        Invalid: the means are needed and the SAE has no stored numbers of a feature.
    """
    numbers = [number for number, at in enumerate(body.features) if at.sae == sae.slug]
    features = tuple(body.features[number].feature for number in numbers)
    if body.method != "mean":
        return Ablated(dictionary_of(sae), features)
    stored = {} if sae.version_id is None else await visit.stored.of(sae.version_id, features)
    for number, feature in zip(numbers, features, strict=True):
        if feature not in stored:
            detail = f"{sae.slug} has no dashboards yet, so the mean of feature {feature} is not known"
            raise Invalid.field(f"#/features/{number}", f"{detail}; use method zero or resample")
    means = tuple(stored[feature].mean_activation for feature in features)
    return Ablated(dictionary_of(sae), features, means)


def _written(visit: Visit, read: _Read, result: AblationResult) -> AblateOut:
    tokens = visit.strings(read.tokens.ids)
    return AblateOut(
        tokens=tokens,
        token_ids=read.tokens.ids,
        loss_default=_mean(result.losses_default),
        loss_ablated=_mean(result.losses_ablated),
        kl_mean=sum(result.kl) / len(result.kl),
        by_token=[
            TokenEffect(
                position=position,
                token=token,
                next_token=tokens[position + 1] if position + 1 < len(tokens) else None,
                loss_default=result.losses_default[position],
                loss_ablated=result.losses_ablated[position],
                kl=result.kl[position],
            )
            for position, token in enumerate(tokens)
        ],
        position=result.position,
        metric=_metric(visit, read.body, result),
        rose=_shifts(visit, result.rose),
        fell=_shifts(visit, result.fell),
        n_positions_changed=result.n_positions_changed,
        timings=visit.timings(),
        provenance=visit.provenance(bos=read.tokens.has_bos, saes=read.saes),
    )


def _metric(visit: Visit, body: AblateRequest, result: AblationResult) -> MetricEffect | None:
    if body.metric is None or result.metric is None:
        return None
    names = answer_names(visit.model, body.metric)

    def named(logits: Mapping[int, float]) -> dict[str, float]:
        return {names[token]: logit for token, logit in logits.items()}

    change = result.metric
    return MetricEffect(
        default=change.default,
        ablated=change.ablated,
        change=change.ablated - change.default,
        logits_default=named(change.logits_default),
        logits_ablated=named(change.logits_ablated),
    )


def _shifts(visit: Visit, shifts: Sequence[Shift]) -> list[TokenShift]:
    names = visit.strings([shift.token_id for shift in shifts])
    return [
        TokenShift(
            token_id=shift.token_id,
            token=name,
            logit_default=shift.logit_default,
            logit_ablated=shift.logit_ablated,
            logprob_default=shift.logprob_default,
            logprob_ablated=shift.logprob_ablated,
        )
        for shift, name in zip(shifts, names, strict=True)
    ]


def _mean(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known) if known else None
