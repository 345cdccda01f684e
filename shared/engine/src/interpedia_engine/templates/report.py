"""What a search found, as a JSON object.

Metrics are logsumexp(good logits) − logsumexp(bad logits); effects are differences of metrics.

- `template`: `id`, `title`, `description`.
- `method`: of the shortlist. Effects are of patching for `attribution_patching`, else of zero ablation.
- `n_prompts`, `rejected`: prompts used; draws refused, by reason.
- `accuracy`: `n`, `correct`, `accuracy`, `interval` (95 %, Wilson), `chance`, `top1` (share of prompts whose
  most probable token is a good answer), `metric_mean`, `metric_corrupt_mean` (null without patching).
- `can_do`, `verdict`: whether the model does the task, and that in a sentence. If not, nothing is ranked.
- `prompts`: `text`, `corrupt_text`, `variant`, `good`, `bad`, `metric`, `metric_corrupt`, `predicted` (the
  most probable token).
- `features`: by magnitude of `effect`, each with
  - `sae`, `index`;
  - `effect`, `effect_se`: metric lost without it, mean over prompts, and its standard error;
  - `effect_share`: effect / mean metric of the template;
  - `attribution`: the gradient's estimate of the effect;
  - `consistency`: share of prompts on which its effect has the sign of the mean;
  - `n_active`: prompts on which taking it out changes anything;
  - `by_variant`: mean effect on each wording;
  - `by_role`: mean attribution at the positions of each role, and at `other` ones; roles may overlap;
  - `by_control`: mean effect on each control template;
  - `specificity`: |effect| / (|effect| + mean |control effect|), 1 = this task alone; null without controls;
  - `contrast`: |effect| − mean |control effect|; null without controls;
  - `promoted`, `suppressed`: logit lens of its decoder row: `token_id`, `token`, `effect`; null where the
    dictionary writes at a hook that has none.
- `agreement`: Pearson's r of attributions and effects over features and prompts; null where it is undefined.
- `controls`: `template`, and the fields of `accuracy`.
- `faithfulness`: by SAE: `sae`, `metric_all`, `metric_none`, and `points`, as `effects.faithfulness` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.effects.cases import Dictionary, FeatureKey
from interpedia_engine.effects.clean import Clean
from interpedia_engine.effects.decoding import rows_of
from interpedia_engine.effects.faithfulness import Curve
from interpedia_engine.effects.head import unembedding_rows
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.logit_lens import logit_effects, residual_directions
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.templates.language import Template
from interpedia_engine.templates.rendering import Prompt, Rendered

CHANCE = 0.5
_N_TOKENS = 10
_Z_95 = 1.959964


@dataclass(frozen=True)
class Accuracy:
    """How often a model gives the right answer on prompts."""

    n: int
    correct: int
    """Prompts on which the good answers together are more probable than the bad ones; without bad answers,
    on which the most probable token is a good one."""
    top1: int
    """Prompts on which the most probable token of all is a good answer."""
    metric_mean: float
    metric_corrupt_mean: float | None

    @property
    def can_do(self) -> bool:
        """Whether it is right more often than not."""
        return self.correct > CHANCE * self.n


@dataclass(frozen=True)
class Control:
    """Another template on which the same features were ablated."""

    template: str
    accuracy: Accuracy
    effects: list[float]
    """Mean over its prompts, by candidate."""


@dataclass(frozen=True)
class Findings:
    """All that a search computed; lists by candidate are in the order of `candidates`."""

    template: Template
    method: str
    rendered: Rendered
    cleans: Sequence[Clean]
    accuracy: Accuracy
    candidates: Sequence[FeatureKey] = ()
    effects: Sequence[Sequence[float]] = ()
    """By candidate and prompt."""
    estimates: Sequence[Float[Tensor, "candidate pos"]] = ()
    """By prompt."""
    controls: Sequence[Control] = ()
    curves: Sequence[tuple[int, Curve]] = field(default_factory=list[tuple[int, Curve]])


def accuracy_of(cleans: Sequence[Clean]) -> Accuracy:
    """Count the prompts that a model gets right."""
    hits = [clean.best_token in clean.case.metric.good for clean in cleans]
    right = [
        clean.metric > 0 if clean.case.metric.bad else hit for clean, hit in zip(cleans, hits, strict=True)
    ]
    corrupt = [clean.metric_corrupt for clean in cleans if clean.metric_corrupt is not None]
    return Accuracy(
        n=len(cleans),
        correct=sum(right),
        top1=sum(hits),
        metric_mean=_mean([clean.metric for clean in cleans]),
        metric_corrupt_mean=_mean(corrupt) if corrupt else None,
    )


@dataclass(frozen=True)
class _Attributions:
    """What the estimates come to, in float64."""

    by_prompt: Float[Tensor, "prompt candidate"]
    by_role: dict[str, Float[Tensor, " candidate"]]
    """Mean over prompts."""


def report(
    model: LanguageModel, dictionaries: Sequence[Dictionary], findings: Findings, pace: Pace
) -> Steps[dict[str, Any]]:
    """Write up a search; the fields are described at the top of this module."""
    accuracy = findings.accuracy
    order = sorted(range(len(findings.candidates)), key=lambda i: (-abs(_mean(findings.effects[i])), i))
    lenses = yield from _lenses(model, dictionaries, findings.candidates, pace)
    attributions = yield from _attributions(findings)
    template = findings.template
    return {
        "template": {"id": template.id, "title": template.title, "description": template.description},
        "method": findings.method,
        "n_prompts": accuracy.n,
        "rejected": findings.rendered.rejected,
        "accuracy": _accuracy(accuracy),
        "can_do": accuracy.can_do,
        "verdict": _verdict(accuracy),
        "prompts": [
            _prompt(model, prompt, clean)
            for prompt, clean in zip(findings.rendered.prompts, findings.cleans, strict=True)
        ],
        "features": [
            _feature(dictionaries, findings, attributions, i) | lenses[findings.candidates[i]] for i in order
        ],
        "agreement": _agreement(findings, attributions),
        "controls": [
            {"template": control.template} | _accuracy(control.accuracy) for control in findings.controls
        ],
        "faithfulness": [{"sae": dictionaries[i].name} | asdict(curve) for i, curve in findings.curves],
    }


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, z2 = correct / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "n": accuracy.n,
        "correct": accuracy.correct,
        "accuracy": accuracy.correct / accuracy.n,
        "interval": list(wilson(accuracy.correct, accuracy.n)),
        "chance": CHANCE,
        "top1": accuracy.top1 / accuracy.n,
        "metric_mean": accuracy.metric_mean,
        "metric_corrupt_mean": accuracy.metric_corrupt_mean,
    }


def _verdict(accuracy: Accuracy) -> str:
    count = f"The model is right on {accuracy.correct} of {accuracy.n} prompts"
    if not accuracy.can_do:
        return f"{count}: it cannot do this task, so no feature is ranked."
    if wilson(accuracy.correct, accuracy.n)[0] <= CHANCE:
        return f"{count}, which may be chance: read the ranking with care."
    return f"{count}."


def _prompt(model: LanguageModel, prompt: Prompt, clean: Clean) -> dict[str, Any]:
    return {
        "text": prompt.text,
        "corrupt_text": prompt.corrupt_text,
        "variant": prompt.variant,
        "good": list(prompt.good),
        "bad": list(prompt.bad),
        "metric": clean.metric,
        "metric_corrupt": clean.metric_corrupt,
        "predicted": model.vocabulary.text([clean.best_token]),
    }


def _feature(
    dictionaries: Sequence[Dictionary], findings: Findings, attributions: _Attributions, i: int
) -> dict[str, Any]:
    key, effects = findings.candidates[i], findings.effects[i]
    effect = _mean(effects)
    control = [abs(one.effects[i]) for one in findings.controls]
    beside = _mean(control) if control else None
    metric = findings.accuracy.metric_mean
    size = abs(effect)
    return {
        "sae": dictionaries[key.dictionary].name,
        "index": key.feature,
        "effect": effect,
        "effect_se": _standard_error(effects),
        "effect_share": effect / metric if metric else None,
        "attribution": float(attributions.by_prompt[:, i].mean()),
        "consistency": sum(one * effect > 0 for one in effects) / len(effects),
        "n_active": sum(one != 0.0 for one in effects),
        "by_variant": _by_variant(findings, effects),
        "by_role": {role: float(means[i]) for role, means in attributions.by_role.items()},
        "by_control": {one.template: one.effects[i] for one in findings.controls},
        "specificity": None if beside is None or size + beside == 0 else size / (size + beside),
        "contrast": None if beside is None else size - beside,
    }


def _by_variant(findings: Findings, effects: Sequence[float]) -> list[float | None]:
    means: list[float | None] = []
    for variant in range(len(findings.template.variants)):
        own = [
            effect
            for effect, prompt in zip(effects, findings.rendered.prompts, strict=True)
            if prompt.variant == variant
        ]
        means.append(_mean(own) if own else None)
    return means


def _attributions(findings: Findings) -> Steps[_Attributions]:
    count = len(findings.candidates)
    roles = [*(role.name for role in findings.template.roles), "other"]
    totals = {role: torch.zeros(count, dtype=torch.float64) for role in roles}
    sums: list[Tensor] = [torch.zeros(0, count, dtype=torch.float64)]
    # Without candidates there are no estimates either.
    for prompt, table in zip(findings.rendered.prompts, findings.estimates, strict=False):
        yield Progress(len(sums) - 1, len(findings.estimates), "report")
        rest = set(range(table.shape[1]))
        for role, positions in prompt.roles.items():
            totals[role] += table[:, list(positions)].sum(dim=1)
            rest -= set(positions)
        totals["other"] += table[:, sorted(rest)].sum(dim=1)
        sums.append(table.sum(dim=1, keepdim=True).T.to(torch.float64))
    n_prompts = max(1, len(findings.estimates))
    return _Attributions(torch.cat(sums), {role: total / n_prompts for role, total in totals.items()})


def _lenses(
    model: LanguageModel, dictionaries: Sequence[Dictionary], candidates: Sequence[FeatureKey], pace: Pace
) -> Steps[dict[FeatureKey, dict[str, Any]]]:
    lenses: dict[FeatureKey, dict[str, Any]] = {}
    for number in sorted({key.dictionary for key in candidates}):
        own = [key for key in candidates if key.dictionary == number]
        dictionary = dictionaries[number]
        index = torch.tensor([key.feature for key in own], device=dictionary.sae.device)
        try:
            rows = residual_directions(rows_of(dictionary.sae, index), dictionary.written, model)
        except UnsupportedHook:
            lenses |= {key: {"promoted": None, "suppressed": None} for key in own}
            continue
        size = unembedding_rows(model, pace, n_logits=2)
        for first in range(0, len(own), size):
            yield Progress(len(lenses), len(candidates), "report")
            found = logit_effects(rows[first : first + size], model, final_norm_gain=True)
            for key, effects in zip(own[first : first + size], found, strict=True):
                ends = {"promoted": _tokens(model, effects, 1), "suppressed": _tokens(model, effects, -1)}
                lenses[key] = ends
    return lenses


def _tokens(model: LanguageModel, effects: Float[Tensor, " d_vocab"], sign: int) -> list[dict[str, Any]]:
    top = (sign * effects).topk(min(_N_TOKENS, len(effects))).indices.tolist()
    return [{"token_id": i, "token": model.vocabulary.text([i]), "effect": float(effects[i])} for i in top]


def _agreement(findings: Findings, attributions: _Attributions) -> float | None:
    effects = torch.tensor([list(row) for row in findings.effects], dtype=torch.float64).flatten()
    if effects.numel() < 2:
        return None
    r = float(torch.corrcoef(torch.stack([effects, attributions.by_prompt.T.flatten()]))[0, 1])
    return r if math.isfinite(r) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))
