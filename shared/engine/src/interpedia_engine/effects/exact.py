"""Ablation for real, of many features one by one: only the blocks above a dictionary run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpedia_engine.effects.cases import Case, Dictionary, FeatureKey, check_feature
from interpedia_engine.effects.clean import (
    Clean,
    Replacement,
    Setting,
    at_positions,
    batches,
    clean_run,
    padded_streams,
)
from interpedia_engine.effects.decoding import Entries, by_feature, contribution
from interpedia_engine.effects.head import read_metrics
from interpedia_engine.effects.resume import run_from
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import OutOfRange
from interpedia_engine.models.language_model import LanguageModel


def exact_effects(
    model: LanguageModel,
    cases: Sequence[Case],
    dictionaries: Sequence[Dictionary],
    candidates: Sequence[FeatureKey],
    *,
    replacement: Replacement = "zero",
    pace: Pace | None = None,
) -> Steps[list[list[float]]]:
    """Return metric minus metric without the feature, `[candidate][case]`.

    A feature is set to zero, or to its value in the case's corrupt prompt, at all positions but a leading
    BOS; the reconstruction error stays. Where it has that value already the effect is 0 and nothing is run.

    Raises:
        OutOfRange: a token, answer, position or feature outside its range.
        MissingInput: `corrupt` without a corrupt prompt.
        WidthMismatch, UnsupportedHook: a dictionary does not fit its hooks, or cannot be written.
    """
    setting = Setting(model, dictionaries, replacement, pace or Pace())
    for key in candidates:
        if not 0 <= key.dictionary < len(dictionaries):
            raise OutOfRange("dictionary", f"{key.dictionary} is outside 0..{len(dictionaries) - 1}")
        check_feature(dictionaries[key.dictionary], key.feature)
    cleans = yield from clean_run(setting, cases)
    return (yield from effects_of(setting, cleans, candidates))


@dataclass(frozen=True)
class Change:
    """One prompt without some of one dictionary's features."""

    row: int
    dictionary: int
    removed: Entries


def effects_of(
    setting: Setting, cleans: Sequence[Clean], candidates: Sequence[FeatureKey], phase: str = "ablations"
) -> Steps[list[list[float]]]:
    """Return what `exact_effects` does, of prompts that have been run."""
    effects = [[0.0] * len(cleans) for _ in candidates]
    found: dict[tuple[int, int], Change] = {}
    for row, clean in enumerate(cleans):
        yield Progress(row, len(cleans), phase)
        found |= {(number, row): change for number, change in _removals(row, clean, candidates)}
    places = sorted(found)
    metrics = yield from metrics_after(setting, cleans, [found[place] for place in places], phase)
    for (number, row), metric in zip(places, metrics, strict=True):
        effects[number][row] = cleans[row].metric - metric
    return effects


def _removals(row: int, clean: Clean, candidates: Sequence[FeatureKey]) -> Iterator[tuple[int, Change]]:
    """Yield the number of each candidate that does anything in a prompt, and the prompt without it."""
    features: dict[int, list[int]] = {}
    for key in candidates:
        features.setdefault(key.dictionary, []).append(key.feature)
    tables = {number: by_feature(clean.entries[number], own) for number, own in features.items()}
    for number, key in enumerate(candidates):
        removed = tables[key.dictionary].get(key.feature)
        if removed is not None and _changes_anything(removed, clean.length):
            yield number, Change(row, key.dictionary, removed)


def metrics_after(
    setting: Setting, cleans: Sequence[Clean], changes: Sequence[Change], phase: str
) -> Steps[list[float]]:
    """Return the metric after each change, many changes as rows of one batch."""
    todo = [i for i, change in enumerate(changes) if change.removed.weight.numel()]
    results = {i: cleans[change.row].metric for i, change in enumerate(changes)}
    done = 0
    for dictionary in sorted({changes[i].dictionary for i in todo}):
        own = [i for i in todo if changes[i].dictionary == dictionary]
        lengths = [cleans[changes[i].row].length for i in own]
        blocks = setting.start(dictionary).blocks_run(setting.model)
        for batch in batches(setting.pace, lengths, blocks=blocks):
            yield Progress(done, len(todo), phase)
            numbers = [own[i] for i in batch]
            done += len(batch)
            found = _run_changed(setting, cleans, [changes[i] for i in numbers])
            results |= dict(zip(numbers, found, strict=True))
    return [results[i] for i in range(len(changes))]


def _run_changed(setting: Setting, cleans: Sequence[Clean], changes: Sequence[Change]) -> list[float]:
    """Run one batch; all changes are of one dictionary."""
    number = changes[0].dictionary
    dictionary, start = setting.dictionaries[number], setting.start(number)
    origin = start.hook(setting.model)
    rows = [cleans[change.row] for change in changes]
    with torch.inference_mode():
        parts = [
            contribution(dictionary.sae, change.removed, row.length)
            for change, row in zip(changes, rows, strict=True)
        ]
        removed = padded_streams(parts)

        def without(x: Tensor) -> Tensor:
            return (x.to(removed.dtype) - removed.to(x.device)).to(x.dtype)

        streams = padded_streams([row.streams[origin] for row in rows])
        final = run_from(setting.model, start, streams, [(dictionary.written, without)])
        read = at_positions(final, [row.length for row in rows])
        return read_metrics(setting.model, read, [row.case.metric for row in rows]).tolist()


def _changes_anything(entries: Entries, n_positions: int) -> bool:
    """Whether a feature's weights cancel at no position; patching has two of them at most places."""
    total = torch.zeros(n_positions, dtype=entries.weight.dtype, device=entries.weight.device)
    return bool(total.index_add_(0, entries.position, entries.weight).any())
