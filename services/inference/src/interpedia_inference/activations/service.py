"""From a request to readings, and from their results to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interpedia_engine.hooks import Hook, hook_width
from interpedia_inference.activations.answer import Row, write_rows
from interpedia_inference.admission import reading_cost
from interpedia_inference.admission.cost import active_per_token
from interpedia_inference.compute.contract import (
    AllFeatures,
    DirectionValues,
    FeatureColumns,
    Floats,
    Reading,
    ReadJob,
    ReadResult,
    SparseValues,
)
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.visits.visit import Tokens, Visit
from interpedia_shared.contracts.live.activations import ActivationsRequest
from interpedia_shared.contracts.live.requests import Bos
from interpedia_shared.problems import Invalid, TooLarge


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read on every text: features by SAE, then whole SAEs, then directions."""

    columns: dict[str, tuple[int, ...]]
    """By SAE the features asked for, each once."""
    saes: list[str]
    hooks: list[Hook]
    """Of the directions."""
    readings: list[Reading]


async def read_activations(visit: Visit, body: ActivationsRequest) -> bytes:
    """Read all texts and write the answer as JSON.

    Raises:
        Problem: a text, feature, SAE or vector is refused, or there is too much of them.
    """
    texts = await _tokens(visit, body)
    held = await visit.borrow(body.saes_named())
    visit.check_features(held, body.features)
    plan = _plan(visit, body, held)
    jobs = [
        ReadJob(text.ids, plan.readings, visit.counted(text.ids, ignore_bos=body.ignore_bos))
        for text in texts
    ]
    _check_size(visit, body, texts, held)
    visit.charge(reading_cost(visit.model.shape, jobs))
    results = await visit.read_all(jobs)
    _check_found(visit, results)
    rows = [_row(visit, plan, text, result) for text, result in zip(texts, results, strict=True)]
    written = await asyncio.to_thread(write_rows, body, rows)
    visit.check()
    tail = {
        "timings": visit.timings().model_dump_json(),
        "provenance": visit.provenance(bos=_bos(body, texts), saes=held.values()).model_dump_json(),
    }
    members = ",".join(f'"{name}":{value}' for name, value in tail.items())
    return b'{"results":[' + b",".join(written) + b"]," + members.encode() + b"}"


async def _tokens(visit: Visit, body: ActivationsRequest) -> list[Tokens]:
    if body.token_ids:
        for number, ids in enumerate(body.token_ids):
            visit.check_ids(ids, field=f"#/token_ids/{number}")
        return [Tokens(ids, visit.has_bos(ids)) for ids in body.token_ids]
    return [
        await visit.tokenize(text, prepend_bos=body.prepend_bos, field=f"#/texts/{number}")
        for number, text in enumerate(body.texts)
    ]


def _bos(body: ActivationsRequest, texts: Sequence[Tokens]) -> Bos:
    if body.token_ids:
        return "as_given"
    found = {text.has_bos for text in texts}
    if len(found) > 1:
        return "mixed"
    return "prepended" if found == {True} else "none"


def _plan(visit: Visit, body: ActivationsRequest, held: dict[str, HeldSAE]) -> Plan:
    columns: dict[str, dict[int, None]] = {}
    for at in body.features:
        columns.setdefault(at.sae, {})[at.feature] = None
    directions: list[DirectionValues] = []
    for number, given in enumerate(body.vectors):
        hook = visit.hook(f"#/vectors/{number}/hook", given.hook)
        vector = _vector(visit, hook, given.vector, field=f"#/vectors/{number}/vector")
        directions.append(DirectionValues(hook, vector))
    saes = list(dict.fromkeys(body.saes))
    unique = {slug: tuple(features) for slug, features in columns.items()}
    readings: list[Reading] = [FeatureColumns(held[slug], features) for slug, features in unique.items()]
    readings += [AllFeatures(held[slug]) for slug in saes]
    readings += directions
    return Plan(unique, saes, [one.hook for one in directions], readings)


def _vector(visit: Visit, hook: Hook, values: Sequence[float], *, field: str) -> Floats:
    width = hook_width(hook, visit.model.shape)
    if len(values) != width:
        detail = f"has {len(values)} numbers, {hook.name} has {width}"
        raise Invalid.field(field, detail, limit=width, value=len(values))
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        vector = np.asarray(values, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise Invalid.field(field, "a number is beyond what float32 holds")
    return vector


def _check_size(
    visit: Visit, body: ActivationsRequest, texts: Sequence[Tokens], held: dict[str, HeldSAE]
) -> None:
    """Refuse what would make an answer that nobody can read."""
    per_token = len(body.features) + len(body.vectors)
    per_token += sum(
        active_per_token(held[slug].sae)
        for slug in body.saes
        if held[slug].sae.cfg.k is not None or held[slug].sae.cfg.architecture == "identity"
    )
    _check_values(visit, per_token * sum(len(text.ids) for text in texts))


def _check_found(visit: Visit, results: Sequence[Sequence[ReadResult]]) -> None:
    sizes = [
        len(one.value) if isinstance(one, SparseValues) else one.size for result in results for one in result
    ]
    _check_values(visit, sum(sizes))


def _check_values(visit: Visit, value: int) -> None:
    limit = visit.settings.max_answer_values
    if value > limit:
        raise TooLarge(
            f"The answer would hold {value} activations, the limit is {limit}. Ask for less at once.",
            extensions={"what": "values", "limit": limit, "value": value},
        )


def _row(visit: Visit, plan: Plan, text: Tokens, result: Sequence[ReadResult]) -> Row:
    n_columns, n_saes = len(plan.columns), len(plan.saes)
    columns: dict[tuple[str, int], Floats] = {}
    for (slug, features), values in zip(plan.columns.items(), result[:n_columns], strict=True):
        assert isinstance(values, np.ndarray)
        for number, index in enumerate(features):
            columns[slug, index] = values[:, number]
    sparse = dict(zip(plan.saes, result[n_columns : n_columns + n_saes], strict=True))
    directions = list(zip(plan.hooks, result[n_columns + n_saes :], strict=True))
    return Row(
        token_ids=text.ids,
        tokens=visit.strings(text.ids),
        columns=columns,
        sparse={slug: one for slug, one in sparse.items() if isinstance(one, SparseValues)},
        directions=[(hook, one) for hook, one in directions if isinstance(one, np.ndarray)],
    )
