"""Which features of a text push a metric: by gradient, and the first of them for real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.effects.cases import Case, Dictionary, FeatureKey
from interpedia_engine.effects.clean import Clean, Setting, clean_run
from interpedia_engine.effects.decoding import along_rows, contribution
from interpedia_engine.effects.exact import effects_of
from interpedia_engine.effects.gradients import BACKWARD_COST, gradient_batch, gradients
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import OutOfRange
from interpedia_engine.models.language_model import LanguageModel

AttributionMethod = Literal["gradient_x_activation", "attribution_patching", "integrated_gradients"]


@dataclass(frozen=True)
class AttributionPlan:
    """How features are ranked."""

    method: AttributionMethod = "gradient_x_activation"
    steps: int = 8
    """Of `integrated_gradients`."""
    k: int = 20
    exact: int = 10
    """So many of the first ones are ablated (or patched) for real."""


@dataclass(frozen=True)
class Attributed:
    """A feature's part in the metric; positive when it pushes the metric up."""

    key: FeatureKey
    attribution: float
    """Summed over positions."""
    by_position: list[float]
    max_activation: float
    """On this text, a leading BOS apart; of largest magnitude where features can be negative."""
    exact: float | None = None
    """Metric minus metric with the feature ablated (or patched) everywhere but at a leading BOS."""


@dataclass(frozen=True)
class AttributionResult:
    """Features by magnitude: by exact effect those that have one, then by attribution."""

    position: int
    metric: float
    metric_corrupt: float | None
    results: list[Attributed]


def attribute(
    model: LanguageModel,
    case: Case,
    dictionaries: Sequence[Dictionary],
    plan: AttributionPlan,
    pace: Pace | None = None,
) -> Steps[AttributionResult]:
    """Rank the features of dictionaries by their part in a metric.

    With m the metric, and x = decode(f) + ε at the hook that a dictionary writes, ε held as it is:

    | method | attribution of feature i at a position |
    |---|---|
    | `gradient_x_activation` | f_i · ∂m/∂f_i |
    | `attribution_patching` | (f_i − f_i(corrupt)) · ∂m/∂f_i |
    | `integrated_gradients` | f_i · mean over steps s of ∂m/∂f_i at α_s·f, α_s = (s + ½)/steps |

    Nothing is attributed to a leading BOS.

    Raises:
        OutOfRange: a token, answer or position outside its range; `steps`, `k` or `exact` too small.
        MissingInput: patching without a corrupt prompt.
        WidthMismatch, UnsupportedHook: a dictionary does not fit its hooks, or one of them cannot be written.

    Source: Marks et al. 2024 (arXiv:2403.19647), section 3; Syed et al. 2023 (arXiv:2310.10348) for patching.
    """
    _check(plan)
    replacement = "corrupt" if plan.method == "attribution_patching" else "zero"
    setting = Setting(model, dictionaries, replacement, pace or Pace())
    (clean,) = yield from clean_run(setting, [case])
    if plan.method == "integrated_gradients":
        slopes = yield from _integrated(setting, clean, plan.steps)
    else:
        (found,) = yield from gradients(setting, [clean])
        slopes = [found[dictionary.written] for dictionary in dictionaries]
    ranked = _ranked(setting, clean, slopes, plan.k)
    checked = [one.key for one in ranked[: plan.exact]]
    effects = yield from effects_of(setting, [clean], checked)
    results = [replace(one, exact=effect[0]) for one, effect in zip(ranked, effects, strict=False)]
    results.sort(key=lambda one: -abs(one.exact or 0.0))
    return AttributionResult(
        case.position, clean.metric, clean.metric_corrupt, [*results, *ranked[len(results) :]]
    )


def _check(plan: AttributionPlan) -> None:
    for field, value, least in (("steps", plan.steps, 1), ("k", plan.k, 1), ("exact", plan.exact, 0)):
        if value < least:
            raise OutOfRange(field, f"at least {least} is needed, not {value}")


def _ranked(
    setting: Setting, clean: Clean, slopes: Sequence[Float[Tensor, "pos d"]], k: int
) -> list[Attributed]:
    """Return the first k features by magnitude, of those active here or in the corrupt prompt."""
    found: list[Attributed] = []
    with torch.inference_mode():
        for number, slope in enumerate(slopes):
            found += _ranked_of_one(setting, clean, number, slope, k)
    return sorted(found, key=lambda one: -abs(one.attribution))[:k]


def _ranked_of_one(setting: Setting, clean: Clean, number: int, slope: Tensor, k: int) -> list[Attributed]:
    entries = clean.entries[number]
    parts = along_rows(setting.dictionaries[number].sae, slope, entries)
    features, place = entries.feature.unique(return_inverse=True)
    totals = torch.zeros(len(features), dtype=parts.dtype, device=parts.device).index_add_(0, place, parts)
    largest = _largest(*clean.activations[number])
    found: list[Attributed] = []
    for i in totals.abs().argsort(descending=True, stable=True)[:k].tolist():
        own = place == i
        # Positions behind the metric's cannot matter: their share is 0.
        by_position = torch.zeros(len(clean.case.tokens), dtype=parts.dtype, device=parts.device)
        by_position.index_add_(0, entries.position[own], parts[own])
        feature = int(features[i])
        key, activation = FeatureKey(number, feature), largest.get(feature, 0.0)
        found.append(Attributed(key, float(totals[i]), by_position.tolist(), activation))
    return found


def _largest(features: Int[Tensor, " n"], values: Float[Tensor, " n"]) -> dict[int, float]:
    """Return each feature's activation of largest magnitude, with its sign."""
    order = values.abs().argsort(stable=True)
    return dict(zip(features[order].tolist(), values[order].tolist(), strict=True))


def _integrated(setting: Setting, clean: Clean, n_steps: int) -> Steps[list[Float[Tensor, "pos d"]]]:
    """Return for each dictionary its gradient, averaged along the path on which its features grow from 0."""
    averages: list[Tensor] = []
    for number, dictionary in enumerate(setting.dictionaries):
        own = Setting(setting.model, [dictionary], setting.replacement, setting.pace)
        with torch.inference_mode():
            whole = contribution(dictionary.sae, clean.entries[number], clean.length)
        blocks = own.lowest.blocks_run(setting.model)
        rows = setting.pace.rows(positions=clean.length, blocks=blocks, cost=BACKWARD_COST)
        found: list[Tensor] = []
        for first in range(0, n_steps, rows):
            yield Progress(number * n_steps + first, n_steps * len(setting.dictionaries), "gradients")
            shares = [(step + 0.5) / n_steps for step in range(first, min(first + rows, n_steps))]
            offsets = [(share - 1.0) * whole for share in shares]
            batch = gradient_batch(own, [clean] * len(shares), offsets)
            found += [one[dictionary.written] for one in batch]
        averages.append(torch.stack(found).mean(dim=0))
    return averages
