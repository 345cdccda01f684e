"""Which features carry a model's answer on a template of prompts?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.effects.cases import Dictionary, FeatureKey
from interpedia_engine.effects.clean import Clean, Setting, check_setting, clean_run
from interpedia_engine.effects.decoding import along_rows
from interpedia_engine.effects.exact import effects_of
from interpedia_engine.effects.faithfulness import Curve, faithfulness
from interpedia_engine.effects.gradients import Gradients, gradients
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import BadTemplate, OutOfRange
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.templates.language import Template
from interpedia_engine.templates.library import bundled, bundled_ids
from interpedia_engine.templates.rendering import Rendered, rendering
from interpedia_engine.templates.report import Accuracy, Control, Findings, accuracy_of, report

DEFAULT_CONTROLS = ("capital-of", "subject-verb-agreement", "bracket-closing", "gendered-pronoun")
_N_DEFAULT_CONTROLS = 3
_CONTROL_PROMPTS = 8


@dataclass(frozen=True)
class SearchPlan:
    """How a template is searched."""

    n: int = 32
    seed: int = 0
    method: Literal["gradient_x_activation", "attribution_patching"] = "gradient_x_activation"
    """The shortlist's; patching also ranks by patching instead of by zero ablation."""
    k: int = 24
    """Features that are ablated for real and ranked, of all dictionaries together."""
    controls: tuple[str, ...] | None = None
    """Ids of bundled templates; None = chosen here, passing by those that this tokenizer cannot write."""


def search_template(
    model: LanguageModel,
    dictionaries: Sequence[Dictionary],
    template: Template,
    plan: SearchPlan,
    pace: Pace | None = None,
    rendered: Rendered | None = None,
) -> Steps[dict[str, Any]]:
    """Search a template: accuracy, shortlist by gradient, exact ablation, controls, faithfulness, roles.

    The model's accuracy comes first; where it is right on no more than half of the prompts, nothing is
    ranked. Returns a JSON object of finite numbers; its fields are described in `templates.report`.
    `rendered` is what `rendering` made of the template and the plan, if that was done already.

    Raises:
        BadTemplate: it cannot be rendered with this tokenizer, or has no `corrupt` for patching; a control is
            not bundled.
        OutOfRange, WidthMismatch, UnsupportedHook: as `attribute`.
    """
    setting = _setting(model, dictionaries, template, plan, pace)
    if rendered is None:
        rendered = yield from rendering(template, model, n=plan.n, seed=plan.seed)
    cleans = yield from clean_run(setting, [prompt.case for prompt in rendered.prompts])
    accuracy = accuracy_of(cleans)
    if not accuracy.can_do:
        findings = Findings(template, plan.method, rendered, cleans, accuracy)
        return (yield from report(model, dictionaries, findings, setting.pace))
    slopes = yield from gradients(setting, cleans)
    candidates = yield from _shortlist(setting, cleans, slopes, plan.k)
    estimates = yield from _estimates(setting, cleans, slopes, candidates)
    effects = yield from effects_of(setting, cleans, candidates)
    controls = yield from _controls(setting, template, plan, candidates)
    curves = yield from _curves(setting, cleans, candidates, effects)
    findings = Findings(
        template, plan.method, rendered, cleans, accuracy, candidates, effects, estimates, controls, curves
    )
    return (yield from report(model, dictionaries, findings, setting.pace))


def default_controls(template: Template) -> tuple[str, ...]:
    """Return the ids of the templates that a search compares with when it names none."""
    return tuple(name for name in DEFAULT_CONTROLS if name != template.id)[:_N_DEFAULT_CONTROLS]


def _setting(
    model: LanguageModel,
    dictionaries: Sequence[Dictionary],
    template: Template,
    plan: SearchPlan,
    pace: Pace | None,
) -> Setting:
    if not dictionaries:
        raise OutOfRange("saes", "at least one is needed")
    if plan.k < 1:
        raise OutOfRange("k", f"at least 1 is needed, not {plan.k}")
    is_patching = plan.method == "attribution_patching"
    if is_patching and not template.corrupt:
        raise BadTemplate("template.corrupt", "patching needs to know how a prompt is corrupted")
    for i, name in enumerate(plan.controls or ()):
        if name not in bundled_ids():
            raise BadTemplate(
                f"controls.{i}", f"{name[:64]!r} is not bundled; there are {', '.join(bundled_ids())}"
            )
    setting = Setting(model, dictionaries, "corrupt" if is_patching else "zero", pace or Pace())
    check_setting(setting, [])
    return setting


def _shortlist(
    setting: Setting, cleans: Sequence[Clean], slopes: Sequence[Gradients], k: int
) -> Steps[list[FeatureKey]]:
    """Return the k features with the largest mean attribution over prompts, by magnitude."""
    found: list[tuple[float, FeatureKey]] = []
    for number, dictionary in enumerate(setting.dictionaries):
        sae = dictionary.sae
        total = torch.zeros(sae.d_sae, device=sae.device)
        for done, (clean, slope) in enumerate(zip(cleans, slopes, strict=True)):
            yield Progress(done, len(cleans), "shortlist")
            entries = clean.entries[number]
            with torch.inference_mode():
                parts = along_rows(sae, slope[dictionary.written], entries).float()
                total.index_add_(0, entries.feature, parts)
        top = total.abs().topk(min(k, sae.d_sae))
        pairs = zip(top.values.tolist(), top.indices.tolist(), strict=True)
        found += [(size, FeatureKey(number, feature)) for size, feature in pairs if size > 0]
    return [key for _, key in sorted(found, key=lambda one: (-one[0], one[1]))[:k]]


def _estimates(
    setting: Setting, cleans: Sequence[Clean], slopes: Sequence[Gradients], candidates: Sequence[FeatureKey]
) -> Steps[list[Float[Tensor, "candidate pos"]]]:
    """Return the candidates' attributions by position, for each prompt."""
    tables: list[Tensor] = []
    for clean, slope in zip(cleans, slopes, strict=True):
        yield Progress(len(tables), len(cleans), "estimates")
        with torch.inference_mode():
            tables.append(_estimates_on(setting, clean, slope, candidates))
    return tables


def _estimates_on(
    setting: Setting, clean: Clean, slope: Gradients, candidates: Sequence[FeatureKey]
) -> Float[Tensor, "candidate pos"]:
    table = torch.zeros(len(candidates), len(clean.case.tokens))
    for number, dictionary in enumerate(setting.dictionaries):
        places = [place for place, key in enumerate(candidates) if key.dictionary == number]
        if not places:
            continue
        entries = clean.entries[number]
        place_of = torch.full((dictionary.sae.d_sae,), -1, device=entries.feature.device)
        place_of[[candidates[place].feature for place in places]] = torch.tensor(
            places, device=entries.feature.device
        )
        rows = place_of[entries.feature]
        own = entries.only(rows >= 0)
        parts = along_rows(dictionary.sae, slope[dictionary.written], own).float().cpu()
        table.index_put_((rows[rows >= 0].cpu(), own.position.cpu()), parts, accumulate=True)
    return table


def _controls(
    setting: Setting, template: Template, plan: SearchPlan, candidates: Sequence[FeatureKey]
) -> Steps[list[Control]]:
    """Ablate the same features on other templates."""
    names = plan.controls
    is_chosen_here = names is None
    if names is None:
        names = default_controls(template)
    controls: list[Control] = []
    for name in names:
        try:
            other = yield from rendering(
                bundled(name), setting.model, n=min(_CONTROL_PROMPTS, plan.n), seed=plan.seed
            )
        except BadTemplate:
            if not is_chosen_here:
                raise
            continue
        controls.append((yield from _control(setting, name, other, candidates)))
    return controls


def _control(
    setting: Setting, name: str, rendered: Rendered, candidates: Sequence[FeatureKey]
) -> Steps[Control]:
    cleans = yield from clean_run(setting, [prompt.case for prompt in rendered.prompts])
    effects = yield from effects_of(setting, cleans, candidates, f"control {name}")
    accuracy: Accuracy = accuracy_of(cleans)
    return Control(name, accuracy, [sum(row) / len(row) for row in effects])


def _curves(
    setting: Setting,
    cleans: Sequence[Clean],
    candidates: Sequence[FeatureKey],
    effects: Sequence[Sequence[float]],
) -> Steps[list[tuple[int, Curve]]]:
    """Return a curve for every dictionary that has candidates, taken in the order of their effect."""
    order = sorted(range(len(candidates)), key=lambda i: -abs(sum(effects[i])))
    curves: list[tuple[int, Curve]] = []
    for number in sorted({key.dictionary for key in candidates}):
        ranked = [candidates[i].feature for i in order if candidates[i].dictionary == number]
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < len(ranked)] + [len(ranked)]
        curves.append((number, (yield from faithfulness(setting, cleans, number, ranked, sizes))))
    return curves
