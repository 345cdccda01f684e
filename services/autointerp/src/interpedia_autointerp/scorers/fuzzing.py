"""Fuzzing: the judge sees marked tokens and says whether the explanation puts the feature there.

Wrong cases are the same windows with other tokens marked, as many of them, in runs as long and of the same
kind, so that neither text nor marks tell; and, half as many, silent windows in which a token is marked on
which the feature fires elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from pydantic import Field
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.explainers.params import params_of, settled
from interpedia_autointerp.explainers.rules import word_of
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.text import choose_marks
from interpedia_autointerp.material.window import Window
from interpedia_autointerp.scorers.judging import (
    Item,
    JudgeParams,
    batches,
    check_subject,
    read_verdicts,
    verdict_ask,
)
from interpedia_autointerp.scorers.method import Ask, Basis, Needs, Round, Scorer
from interpedia_autointerp.scorers.metrics import BALANCED_ACCURACY, FPR, TPR
from interpedia_autointerp.scorers.prompts import FUZZING
from interpedia_autointerp.scorers.strata import strata_scores
from interpedia_autointerp.scorers.tally import scores_of
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict

WRONG = "wrong_tokens"
SILENT = "silent_token"


class FuzzingParams(JudgeParams):
    """Of `fuzzing`."""

    share: float = Field(
        default=0.3, ge=0, lt=1, description="Of the window's peak: tokens with more are the right ones."
    )


class Fuzzing(Scorer):
    """Are the right tokens marked?"""

    name = "fuzzing"
    version = "1"
    summary = "A judge says whether the marked tokens are those the explanation speaks of."
    prompt: Prompt | None = FUZZING
    params_model: type[Params] = FuzzingParams

    @override
    def needs(self, how: How) -> Needs:
        """Chat."""
        return Needs(endpoint=("chat",))

    @override
    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """One round; no question shows a window twice."""
        check_subject(task, hypothesis)
        if done:
            return []
        how = settled(FuzzingParams, how)
        marks = _marks(task)
        asks: list[Ask] = []
        for number, half in enumerate(_halves(_items(task, how.params), how.seed)):
            for batch in batches(half, how.params.per_call, how.seed + number):
                asks.append(verdict_ask(FUZZING, hypothesis, batch, how, extra={"marks": list(marks)}))
        return asks

    @override
    def parse(
        self,
        task: Task,
        hypothesis: Hypothesis,
        how: How,
        *,
        done: Sequence[Round],
        subject: Subject,
    ) -> list[Verdict]:
        """One verdict for every way of marking."""
        return read_verdicts(self.name, subject, _items(task, params_of(FuzzingParams, how)), done=done)

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """Balanced accuracy and its parts. Marked windows are no sample of a population."""
        metrics = [replace(BALANCED_ACCURACY, is_headline=True), TPR, FPR]
        return [*scores_of(self.name, metrics, basis), *strata_scores(self.name, basis)]


def _marks(task: Task) -> tuple[str, str]:
    return choose_marks(window.text for window in task.of("test"))


def _items(task: Task, params: FuzzingParams) -> list[Item]:
    marks = _marks(task)
    items: list[Item] = []
    words: set[str] = set()
    firing = task.of("test", fires=True)
    places = [window.peak / len(window.pieces) for window in firing]
    for window in firing:
        right = window.active(params.share)
        words |= {word_of(window.pieces[at]) for at in right if window.pieces[at].strip()}
        wrong = wrong_positions(window, right, places)
        if wrong:
            items.append(_item(f"{window.id}/right", window.stratum, window, right, marks, truth=True))
            items.append(_item(f"{window.id}/wrong", WRONG, window, wrong, marks, truth=False))
    return [*items, *_silent_items(task.of("test", fires=False), words, marks, len(items) // 4)]


def _silent_items(
    windows: Sequence[Window], words: Collection[str], marks: tuple[str, str], most: int
) -> list[Item]:
    """Silent windows with a mark on a word of the right ones; windows come in an order that tells nothing."""
    found: list[Item] = []
    for window in windows:
        places = tuple(at for at, piece in enumerate(window.pieces) if word_of(piece) in words)
        if places and len(found) < most:
            found.append(_item(f"{window.id}/silent", SILENT, window, places[:1], marks, truth=False))
    return found


def _item(
    name: str, stratum: str, window: Window, positions: Sequence[int], marks: tuple[str, str], *, truth: bool
) -> Item:
    data = {"text": window.marked(positions, marks), "marked": [window.pieces[at] for at in positions]}
    return Item(name, stratum, truth, data)


def wrong_positions(window: Window, right: Sequence[int], places: Sequence[float]) -> tuple[int, ...]:
    """As many silent tokens as the right ones; empty if there are too few.

    In runs of the same lengths, of the same kinds where there are some, and near where the right ones of
    another window are: neither number nor arrangement nor place of the marks tells which are wrong.
    The same window always gives the same.

    Args:
        window: on which the feature fires.
        right: the tokens on which it does.
        places: the peaks of all windows, in shares of their length.
    """
    rng = random.Random(f"{window.id}:{window.text}")
    free = {at for at, value in enumerate(window.values) if not value and window.pieces[at]}
    chosen: list[int] = []
    for run in sorted(_runs(right), key=len, reverse=True):
        parts = [run] if _starts(free, len(run)) else [[at] for at in run]
        for part in parts:
            starts = _starts(free, len(part))
            if not starts:
                return ()
            kinds = [_kind(window.pieces[at]) for at in part]
            alike = [s for s in starts if [_kind(window.pieces[s + n]) for n in range(len(part))] == kinds]
            target = rng.choice(places) * len(window.pieces)
            start = min(alike or starts, key=lambda s: abs(s - target))
            chosen += range(start, start + len(part))
            free.difference_update(chosen)
    return tuple(sorted(chosen))


def _runs(positions: Sequence[int]) -> list[list[int]]:
    """Neighbouring positions together."""
    runs: list[list[int]] = []
    for at in sorted(positions):
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _starts(free: Collection[int], length: int) -> list[int]:
    """Where a run of this length has room."""
    return [at for at in sorted(free) if all(at + n in free for n in range(length))]


def _kind(piece: str) -> str:
    text = piece.strip()
    return "word" if text.isalpha() else "number" if text.isdigit() else "space" if not text else "other"


def _halves(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """Of each window one way of marking in either half, by chance which; the others in turn."""
    rng = random.Random(seed)
    halves: tuple[list[Item], list[Item]] = ([], [])
    by_window: dict[str, list[Item]] = {}
    for item in items:
        by_window.setdefault(item.id.partition("/")[0], []).append(item)
    for number, group in enumerate(by_window.values()):
        first = rng.randrange(2) if len(group) > 1 else number % 2
        for offset, item in enumerate(group):
            halves[(first + offset) % 2].append(item)
    return halves
