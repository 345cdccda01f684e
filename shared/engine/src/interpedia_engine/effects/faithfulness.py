"""Do the first n features carry the metric by themselves, and does it fall without them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from interpedia_engine.effects.clean import Clean, Setting
from interpedia_engine.effects.exact import Change, metrics_after
from interpedia_engine.effects.steps import Progress, Steps

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class CurvePoint:
    """The first n features of one dictionary, averaged over prompts."""

    n: int
    metric_kept: float
    """Metric with all other features of the dictionary taken out."""
    metric_removed: float
    """Metric with these n features taken out."""
    faithfulness: float | None
    """(kept − none) / (all − none); None where all and none are equal."""
    removed_share: float | None
    """(all − removed) / (all − none): what the n features explain when only they go."""


@dataclass(frozen=True)
class Curve:
    """Faithfulness over n for one dictionary."""

    metric_all: float
    """The model as it is."""
    metric_none: float
    """All features of the dictionary taken out, their reconstruction error left in the stream."""
    points: list[CurvePoint]


def faithfulness(
    setting: Setting, cleans: Sequence[Clean], dictionary: int, ranked: Sequence[int], sizes: Sequence[int]
) -> Steps[Curve]:
    """Return the curve of a ranking of one dictionary's features.

    Source: Marks et al. 2024 (arXiv:2403.19647), section 4.
    """
    count = len(cleans)
    means: list[tuple[float, float]] = []
    for n in (0, *sizes):
        changes: list[Change] = []
        top = torch.tensor(
            list(ranked[:n]), dtype=torch.int64, device=setting.dictionaries[dictionary].sae.device
        )
        for row, clean in enumerate(cleans):
            yield Progress(len(means), len(sizes) + 1, "faithfulness")
            entries = clean.entries[dictionary]
            in_top = torch.isin(entries.feature, top)
            changes.append(Change(row, dictionary, entries.only(~in_top)))
            changes.append(Change(row, dictionary, entries.only(in_top)))
        metrics = yield from metrics_after(setting, cleans, changes, "faithfulness")
        means.append((sum(metrics[::2]) / count, sum(metrics[1::2]) / count))
    everything = sum(clean.metric for clean in cleans) / count
    none = means[0][0]
    points = [
        _point(n, kept, removed, (everything, none))
        for n, (kept, removed) in zip(sizes, means[1:], strict=True)
    ]
    return Curve(everything, none, points)


def _point(n: int, kept: float, removed: float, ends: tuple[float, float]) -> CurvePoint:
    everything, none = ends
    spread = everything - none
    if abs(spread) < _LEAST_SPREAD:
        return CurvePoint(n, kept, removed, None, None)
    return CurvePoint(n, kept, removed, (kept - none) / spread, (everything - removed) / spread)
