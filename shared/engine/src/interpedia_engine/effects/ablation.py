"""Taking features out of a text: what the model says then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpedia_engine.capture import capture
from interpedia_engine.effects.cases import (
    Dictionary,
    Metric,
    check_dictionary,
    check_feature,
    check_metric,
    check_tokens,
    first_counted,
)
from interpedia_engine.effects.decoding import rows_of
from interpedia_engine.effects.head import all_logits, metric_of, unembedding_rows
from interpedia_engine.effects.resume import observed, run_from, start_below
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import MissingInput, OutOfRange
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions.splice import token_scale
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.sites import Edit, Observe

AblationMethod = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Ablated:
    """Features of one dictionary that are taken out together."""

    dictionary: Dictionary
    features: tuple[int, ...]
    means: tuple[float, ...] | None = None
    """As many as features; needed by the method `mean`: their mean activation over all corpus tokens."""


@dataclass(frozen=True)
class AblationPlan:
    """How features are taken out, and what is read."""

    method: AblationMethod = "zero"
    resample_tokens: tuple[int, ...] | None = None
    """For `resample`: the text whose activations are taken, BOS included if the model has one."""
    seed: int = 0
    positions: tuple[int, ...] | None = None
    """Where; None = everywhere but a leading BOS."""
    metric: Metric | None = None
    k: int = 10
    """Tokens that rose and fell most."""


@dataclass(frozen=True)
class Shift:
    """A token whose logit changed."""

    token_id: int
    logit_default: float
    logit_ablated: float
    logprob_default: float
    logprob_ablated: float


@dataclass(frozen=True)
class MetricChange:
    """A metric with and without the features, and the logits it is made of, by token id."""

    default: float
    ablated: float
    logits_default: dict[int, float]
    logits_ablated: dict[int, float]


@dataclass(frozen=True)
class AblationResult:
    """What taking the features out did; lists have one entry per position."""

    losses_default: list[float | None]
    """Loss of the token that follows, in nats; None at the last position."""
    losses_ablated: list[float | None]
    kl: list[float]
    """KL(default ‖ ablated) of the next-token distribution, in nats."""
    position: int
    """Where the metric, `rose` and `fell` are read."""
    metric: MetricChange | None
    rose: list[Shift] = field(default_factory=list[Shift])
    fell: list[Shift] = field(default_factory=list[Shift])
    n_positions_changed: int = 0
    """Where any of the features had another value."""


def ablate(
    model: LanguageModel,
    tokens: Sequence[int],
    ablated: Sequence[Ablated],
    plan: AblationPlan,
    pace: Pace | None = None,
) -> Steps[AblationResult]:
    """Run a text with and without features; their reconstruction error stays in the stream.

    f' = 0 (`zero`), the feature's mean (`mean`), or its value on another text at a seeded permutation of that
    text's positions behind BOS (`resample`; all features move together). The stream becomes
    h + decode(f') − decode(f). A dictionary above another one reads the stream as changed below it.

    Raises:
        OutOfRange: a token, position, feature or answer outside its range; a feature named twice.
        MissingInput: means or a text to resample are needed and not given.
        WidthMismatch, UnsupportedHook: a dictionary does not fit its hooks.
    """
    ids = tuple(tokens)
    _check(model, ids, ablated, plan)
    start = start_below(hook for one in ablated for hook in (one.dictionary.hook, one.dictionary.written))
    origin = start.hook(model)
    yield Progress(0, 3, "default")
    seen, final = observed(model, torch.tensor([ids]), [origin])
    yield Progress(1, 3, "new values")
    values = _new_values(model, ids, ablated, plan)
    yield Progress(2, 3, "ablated")
    places = _places(model, ids, plan)
    splices = [_Splice(one, places, new) for one, new in zip(ablated, values, strict=True)]
    with torch.inference_mode():
        edits = [edit for one in splices for edit in one.edits()]
        readers = [reader for one in splices for reader in one.readers()]
        final_ablated = run_from(model, start, seen[origin], edits, readers)
    changed = torch.zeros(len(ids), dtype=torch.bool)
    for splice in splices:
        changed |= splice.changed.cpu()
    yield Progress(3, 3, "read")
    result = yield from _read(model, ids, (final[0], final_ablated[0]), plan, pace or Pace())
    return replace(result, n_positions_changed=int(changed.sum()))


def _check(
    model: LanguageModel, tokens: tuple[int, ...], ablated: Sequence[Ablated], plan: AblationPlan
) -> None:
    check_tokens(model, tokens)
    if not ablated:
        raise OutOfRange("features", "at least one is needed")
    if len({id(one.dictionary.sae) for one in ablated}) < len(ablated):
        raise OutOfRange("features", "a dictionary is named twice; name its features together")
    for one in ablated:
        _check_features(model, one, plan)
    wrong = next((p for p in plan.positions or () if not 0 <= p < len(tokens)), None)
    if wrong is not None:
        raise OutOfRange("positions", f"{wrong} is outside 0..{len(tokens) - 1}")
    if plan.metric is not None:
        check_metric(model, plan.metric, len(tokens))
    if not 0 <= plan.k <= model.shape.d_vocab:
        raise OutOfRange("k", f"{plan.k} is outside 0..{model.shape.d_vocab}")
    if plan.method == "resample":
        if plan.resample_tokens is None:
            raise MissingInput("resample_tokens", "resampling needs a text to take activations from")
        check_tokens(model, plan.resample_tokens, "resample_tokens")
        if len(plan.resample_tokens) == first_counted(model, plan.resample_tokens):
            raise OutOfRange("resample_tokens", "the text has no token behind BOS")


def _check_features(model: LanguageModel, one: Ablated, plan: AblationPlan) -> None:
    check_dictionary(model, one.dictionary)
    if not one.features:
        raise OutOfRange("features", f"none of {one.dictionary.name} is named")
    if len(set(one.features)) < len(one.features):
        raise OutOfRange("features", f"one of {one.dictionary.name} is named twice")
    for feature in one.features:
        check_feature(one.dictionary, feature)
    if plan.method == "mean" and (one.means is None or len(one.means) != len(one.features)):
        raise MissingInput("means", f"a mean for each feature of {one.dictionary.name} is needed")


def _places(model: LanguageModel, tokens: tuple[int, ...], plan: AblationPlan) -> Int[Tensor, " n"]:
    if plan.positions is not None:
        return torch.tensor(sorted(set(plan.positions)), dtype=torch.int64)
    return torch.arange(first_counted(model, tokens), len(tokens))


def _new_values(
    model: LanguageModel, tokens: tuple[int, ...], ablated: Sequence[Ablated], plan: AblationPlan
) -> list[Float[Tensor, "pos n_features"]]:
    """Return what each dictionary's features become, at every position."""
    if plan.resample_tokens is not None and plan.method == "resample":
        return _resampled(model, len(tokens), ablated, (plan.resample_tokens, plan.seed))
    means = [
        one.means if plan.method == "mean" and one.means is not None else [0.0] * len(one.features)
        for one in ablated
    ]
    return [
        torch.tensor(row, dtype=one.dictionary.sae.dtype, device=one.dictionary.sae.device).repeat(
            len(tokens), 1
        )
        for one, row in zip(ablated, means, strict=True)
    ]


def _resampled(
    model: LanguageModel, n_positions: int, ablated: Sequence[Ablated], source: tuple[tuple[int, ...], int]
) -> list[Float[Tensor, "pos n_features"]]:
    """Return the features' activations on another text (tokens, seed) at a permutation of its positions."""
    tokens, seed = source
    first = first_counted(model, tokens)
    count = len(tokens) - first
    seen = capture(model, torch.tensor([tokens]), [one.dictionary.hook for one in ablated])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    taken = order[torch.arange(n_positions) % count] + first
    with torch.inference_mode():
        return [
            one.dictionary.sae.encode(seen[one.dictionary.hook][0, taken].to(one.dictionary.sae.device))[
                :, list(one.features)
            ]
            for one in ablated
        ]


class _Splice:
    """Changes one dictionary's features in a forward pass of one row."""

    def __init__(
        self, ablated: Ablated, places: Int[Tensor, " n"], values: Float[Tensor, "pos n_features"]
    ) -> None:
        self._dictionary = ablated.dictionary
        self._features = torch.tensor(ablated.features, device=self._dictionary.sae.device)
        self._places = places
        self._values = values
        self._delta: Tensor | None = None
        self.changed: Bool[Tensor, " pos"] = torch.zeros(0, dtype=torch.bool)

    def edits(self) -> list[tuple[Hook, Edit]]:
        """Return what is changed where."""
        return [(self._dictionary.written, self._write)]

    def readers(self) -> list[tuple[Hook, Observe]]:
        """Return what is read where; a dictionary that writes where it reads does both at once."""
        if self._dictionary.hook == self._dictionary.written:
            return []
        return [(self._dictionary.hook, self._read)]

    def _read(self, x: Float[Tensor, "1 pos d_in"]) -> None:
        sae, places = self._dictionary.sae, self._places
        seen = x[0, places].to(sae.device)
        before = sae.encode(seen)[:, self._features]
        after = self._values[places]
        difference = (after - before) @ rows_of(sae, self._features)
        scale = token_scale(sae, seen)
        self._delta = difference if scale is None else difference * scale
        self.changed = torch.zeros(x.shape[1], dtype=torch.bool)
        self.changed[places] = (after != before).any(dim=-1).cpu()

    def _write(self, x: Float[Tensor, "1 pos d_out"]) -> Float[Tensor, "1 pos d_out"]:
        if self._dictionary.hook == self._dictionary.written:
            self._read(x)
        if self._delta is None:
            raise MissingInput("hook", f"{self._dictionary.hook.name} was not read before it is needed")
        changed = x.clone()
        changed[0, self._places] = (
            x[0, self._places].float() + self._delta.to(device=x.device, dtype=torch.float32)
        ).to(x.dtype)
        return changed


@dataclass
class _Read:
    """Per position, filled in chunks."""

    losses_default: list[float | None] = field(default_factory=list[float | None])
    losses_ablated: list[float | None] = field(default_factory=list[float | None])
    kl: list[float] = field(default_factory=list[float])


def _read(
    model: LanguageModel,
    tokens: tuple[int, ...],
    finals: tuple[Float[Tensor, "pos d_model"], Float[Tensor, "pos d_model"]],
    plan: AblationPlan,
    pace: Pace,
) -> Steps[AblationResult]:
    rows, table = unembedding_rows(model, pace, n_logits=2), _Read()
    for first in range(0, len(tokens), rows):
        if first:
            yield Progress(first, len(tokens), "read")
        _read_positions(model, tokens, finals, slice(first, first + rows), table)
    position = len(tokens) - 1
    if plan.metric is not None and plan.metric.position is not None:
        position = plan.metric.position
    with torch.inference_mode():
        default, ablated = (all_logits(model, final[position]) for final in finals)
        rose, fell = _shifts(default, ablated, plan.k)
        metric = None if plan.metric is None else _metric_change(plan.metric, default, ablated)
    return AblationResult(table.losses_default, table.losses_ablated, table.kl, position, metric, rose, fell)


def _read_positions(
    model: LanguageModel,
    tokens: tuple[int, ...],
    finals: tuple[Float[Tensor, "pos d_model"], Float[Tensor, "pos d_model"]],
    where: slice,
    table: _Read,
) -> None:
    with torch.inference_mode():
        default, ablated = (all_logits(model, final[where]).log_softmax(dim=-1) for final in finals)
        table.kl += (default.exp() * (default - ablated)).sum(dim=-1).clamp(min=0).tolist()
        following = list(tokens[where.start + 1 : where.stop + 1])
        rows = torch.arange(len(following), device=default.device)
        ids = torch.tensor(following, dtype=torch.int64, device=default.device)
        table.losses_default += (-default[rows, ids]).tolist()
        table.losses_ablated += (-ablated[rows, ids]).tolist()
    if where.stop >= len(tokens):
        table.losses_default.append(None)
        table.losses_ablated.append(None)


def _shifts(
    default: Float[Tensor, " d_vocab"], ablated: Float[Tensor, " d_vocab"], k: int
) -> tuple[list[Shift], list[Shift]]:
    change = ablated - default
    logs = default.log_softmax(dim=-1), ablated.log_softmax(dim=-1)
    sides: list[list[Shift]] = []
    for sign in (1.0, -1.0):
        top = (sign * change).topk(k).indices.tolist()
        sides.append(
            [
                Shift(i, float(default[i]), float(ablated[i]), float(logs[0][i]), float(logs[1][i]))
                for i in top
                if sign * float(change[i]) > 0
            ]
        )
    return sides[0], sides[1]


def _metric_change(metric: Metric, default: Tensor, ablated: Tensor) -> MetricChange:
    good, bad = list(metric.good), list(metric.bad)
    return MetricChange(
        default=float(metric_of(default[good], default[bad])),
        ablated=float(metric_of(ablated[good], ablated[bad])),
        logits_default={i: float(default[i]) for i in (*good, *bad)},
        logits_ablated={i: float(ablated[i]) for i in (*good, *bad)},
    )
