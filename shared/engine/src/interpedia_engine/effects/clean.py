"""Prompts as they are: one forward pass, and what of it later steps start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.effects.cases import Case, Dictionary, check_case, check_dictionary, first_counted
from interpedia_engine.effects.decoding import Entries, active_entries, joined
from interpedia_engine.effects.head import all_logits, read_metrics
from interpedia_engine.effects.resume import Start, observed, start_below
from interpedia_engine.effects.steps import Pace, Progress, Steps
from interpedia_engine.errors import MissingInput
from interpedia_engine.hooks import Hook
from interpedia_engine.models.language_model import LanguageModel

Replacement = Literal["zero", "corrupt"]


@dataclass(frozen=True)
class Clean:
    """One prompt, cut behind the position where its metric is read: later tokens cannot change it."""

    case: Case
    length: int
    metric: float
    metric_corrupt: float | None
    best_token: int
    """The model's own most probable next token."""
    streams: dict[Hook, Float[Tensor, "pos d_model"]]
    entries: list[Entries]
    """By dictionary: active features, less what replaces them."""
    activations: list[tuple[Int[Tensor, " n"], Float[Tensor, " n"]]]
    """By dictionary: feature and activation, unscaled, as they are."""


@dataclass(frozen=True)
class Setting:
    """What stays the same over a whole computation."""

    model: LanguageModel
    dictionaries: Sequence[Dictionary]
    replacement: Replacement
    pace: Pace

    def start(self, dictionary: int) -> Start:
        """Return where a run begins that changes this dictionary's features."""
        return start_below([self.dictionaries[dictionary].written])

    @property
    def lowest(self) -> Start:
        """Where a run begins that changes any of them."""
        return start_below(dictionary.written for dictionary in self.dictionaries)


def check_setting(setting: Setting, cases: Sequence[Case]) -> None:
    """Check everything before anything is computed.

    Raises:
        OutOfRange, MissingInput, WidthMismatch: see `check_case`, `check_dictionary`.
    """
    for dictionary in setting.dictionaries:
        check_dictionary(setting.model, dictionary)
    for case in cases:
        check_case(setting.model, case)
        if setting.replacement == "corrupt" and case.corrupt is None:
            raise MissingInput("corrupt", "patching needs a corrupt prompt")


def clean_run(setting: Setting, cases: Sequence[Case]) -> Steps[list[Clean]]:
    """Run the prompts, in batches of similar length; results are in the order of `cases`.

    Raises:
        OutOfRange, MissingInput, WidthMismatch, UnsupportedHook: see `exact_effects`.
    """
    check_setting(setting, cases)
    results: dict[int, Clean] = {}
    lengths = [case.position + 1 for case in cases]
    for batch in batches(setting.pace, lengths, blocks=setting.model.shape.n_layers):
        yield Progress(len(results), len(cases), "clean run")
        results |= dict(zip(batch, _clean_batch(setting, [cases[i] for i in batch]), strict=True))
    return [results[i] for i in range(len(cases))]


def batches(pace: Pace, lengths: Sequence[int], *, blocks: int, cost: int = 1) -> Iterator[list[int]]:
    """Yield groups of row numbers of similar length, each small enough for one step."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and len(batch) >= pace.rows(positions=lengths[i], blocks=blocks, cost=cost):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded_streams(streams: Sequence[Float[Tensor, "pos d"]]) -> Float[Tensor, "batch pos d"]:
    """Stack streams of different lengths, zeros on the right."""
    return torch.nn.utils.rnn.pad_sequence(list(streams), batch_first=True)


def at_positions(final: Float[Tensor, "batch pos d"], lengths: Sequence[int]) -> Float[Tensor, "batch d"]:
    """Return each row's last position that is no padding."""
    last = torch.tensor(lengths, device=final.device) - 1
    return final[torch.arange(len(lengths), device=final.device), last]


@dataclass(frozen=True)
class _Pass:
    seen: dict[Hook, Tensor]
    final: Float[Tensor, "batch d_model"]


def _clean_batch(setting: Setting, cases: Sequence[Case]) -> list[Clean]:
    read = [dictionary.hook for dictionary in setting.dictionaries]
    starts = {setting.start(i).hook(setting.model) for i in range(len(read))}
    with torch.inference_mode():
        clean = _pass(setting.model, cases, [case.tokens for case in cases], [*read, *starts])
        corrupt = None
        if setting.replacement == "corrupt":
            corrupt = _pass(setting.model, cases, [case.corrupt or () for case in cases], read)
        metrics = read_metrics(setting.model, clean.final, [case.metric for case in cases]).tolist()
        best = all_logits(setting.model, clean.final).argmax(dim=-1).tolist()
        changed: list[float | None] = [None] * len(cases)
        if corrupt is not None:
            changed = read_metrics(setting.model, corrupt.final, [case.metric for case in cases]).tolist()
        results: list[Clean] = []
        for row, case in enumerate(cases):
            length = case.position + 1
            parts = [_features(setting, i, row, case, (clean, corrupt)) for i in range(len(read))]
            results.append(
                Clean(
                    case=case,
                    length=length,
                    metric=metrics[row],
                    metric_corrupt=changed[row],
                    best_token=best[row],
                    streams={hook: clean.seen[hook][row, :length].clone() for hook in starts},
                    entries=[entries for entries, _ in parts],
                    activations=[activations for _, activations in parts],
                )
            )
    return results


def _features(
    setting: Setting, number: int, row: int, case: Case, passes: tuple[_Pass, _Pass | None]
) -> tuple[Entries, tuple[Tensor, Tensor]]:
    dictionary, (clean, corrupt) = setting.dictionaries[number], passes
    first, length = first_counted(setting.model, case.tokens), case.position + 1
    x = clean.seen[dictionary.hook][row, :length]
    entries, values = active_entries(dictionary.sae, x, first=first)
    features = entries.feature
    if corrupt is not None:
        other = corrupt.seen[dictionary.hook][row, :length]
        replaced, _ = active_entries(dictionary.sae, other, first=first, scaled_by=x)
        entries = joined([entries, replaced.negated()])
    return entries, (features, values)


def _pass(
    model: LanguageModel, cases: Sequence[Case], rows: Sequence[tuple[int, ...]], hooks: Sequence[Hook]
) -> _Pass:
    lengths = [case.position + 1 for case in cases]
    longest = max(lengths)
    # Padding repeats a real token: what stands behind a position never reaches it.
    kept = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    tokens = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in kept])
    seen, final = observed(model, tokens, hooks)
    return _Pass(seen, at_positions(final, lengths))
