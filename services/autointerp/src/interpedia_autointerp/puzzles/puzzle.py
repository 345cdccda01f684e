"""Features that are made up, so that it is known which explanation of them is true.

They test scorers, not explainers: a scorer is worth something if the true explanation gets the best score.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.material.task import Population, Task
from interpedia_autointerp.material.window import Split, Window
from interpedia_shared.ids import FeatureRef

Kind = Literal["true", "too_broad", "too_narrow", "wrong_context", "effect"]
"""too_broad      fits all it fires on, and more
too_narrow     fits some of what it fires on, and nothing else
wrong_context  the right words where it is silent
effect         what often comes with it, instead of what it fires on
"""
RuleData = Mapping[str, Any]
"""`{"any": words}`, `{"all": rules}`, `{"none": rule}`, `{"regex": pattern}`, `{"always": bool}`."""


@dataclass(frozen=True, slots=True)
class Clauses:
    """Sentences with a gap, and the words for it."""

    carriers: tuple[str, ...]
    words: tuple[str, ...]

    def pick(self, rng: random.Random, number: int) -> tuple[str, str]:
        """A sentence and its word; over the numbers every word has its turn."""
        word = self.words[number % len(self.words)]
        return rng.choice(self.carriers).format(word), word


@dataclass(frozen=True, slots=True)
class Wrong:
    """A false explanation, and clauses on which it and the feature disagree."""

    kind: Kind
    text: str
    rule: RuleData
    traps: Clauses | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A feature: it fires on the words of `fires` in their sentences, and nowhere else.

    `is_local`: the word alone decides; what is around it does not matter.
    """

    name: str
    text: str
    rule: RuleData
    fires: Clauses
    wrong: tuple[Wrong, ...]
    is_local: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """One explanation of a puzzle."""

    kind: Kind
    text: str
    rule: RuleData

    def hypothesis(self, *, with_rule: bool = False) -> Hypothesis:
        """As a scorer gets it; `with_rule` for a judge that reads rules."""
        text = f"{self.text} [[rule: {json.dumps(self.rule)}]]" if with_rule else self.text
        return Hypothesis(text)


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A task and explanations of it, the true one first."""

    name: str
    task: Task
    candidates: tuple[Candidate, ...]
    is_local: bool

    @property
    def true(self) -> Candidate:
        """The right one."""
        return self.candidates[0]


@dataclass(frozen=True, slots=True)
class Size:
    """Windows of a split: firing ones, ones with a trap, and others."""

    firing: int
    traps: int
    random: int


SIZES: Mapping[Split, Size] = {
    "explain": Size(12, 6, 6),
    "validate": Size(5, 3, 3),
    "test": Size(48, 32, 16),
    "redteam": Size(4, 2, 2),
}
_WORD = re.compile(r"\s?\w+|\s|[^\w\s]")
_DENSITY = 0.02
_SILENT_WINDOWS = 10_000.0
_TRAP_SHARE = 0.04
"""Of silent windows, those that hold a trap: rare in the corpus, and many in the test."""


def make_puzzle(spec: Spec, fillers: Sequence[str], *, seed: int = 0) -> Puzzle:
    """Write the windows of every split."""
    rng = random.Random(f"{seed} {spec.name}")
    drafts: list[Window] = []
    for split, size in SIZES.items():
        drafts += _firing(spec, fillers, rng, split=split, count=size.firing)
        drafts += _silent(spec, fillers, rng, split=split, size=size)
    rng.shuffle(drafts)
    windows = tuple(replace(w, id=f"w{n}", document=n) for n, w in enumerate(drafts, 1))
    task = Task(
        feature=FeatureRef("puzzles", "made-up", sum(map(ord, spec.name))),
        status="ok",
        windows=windows,
        population=Population(0.001, 1000, 60, 32, _DENSITY),
        max_activation=10.0,
        made_with={"puzzle": spec.name, "seed": seed},
    )
    wrong = [Candidate(each.kind, each.text, each.rule) for each in spec.wrong]
    return Puzzle(spec.name, task, (Candidate("true", spec.text, spec.rule), *wrong), spec.is_local)


def _firing(
    spec: Spec, fillers: Sequence[str], rng: random.Random, *, split: Split, count: int
) -> list[Window]:
    windows: list[Window] = []
    for number in range(count):
        sentence, word = spec.fires.pick(rng, number)
        interval = 1 + number % 5
        value = round(2.0 * interval - rng.uniform(0.1, 1.9), 3)
        pieces = _pieces(sentence, fillers, rng)
        at = _find(pieces, word)
        values = tuple(value if at <= place < at + _length(word) else 0.0 for place in range(len(pieces)))
        windows.append(Window("new", pieces, values, split, f"interval {interval}"))
    return windows


def _silent(
    spec: Spec, fillers: Sequence[str], rng: random.Random, *, split: Split, size: Size
) -> list[Window]:
    windows: list[Window] = []
    traps = [each.traps for each in spec.wrong if each.traps is not None]
    for number in range(size.traps if traps else 0):
        sentence, _ = traps[number % len(traps)].pick(rng, number // len(traps))
        weight = _SILENT_WINDOWS * _TRAP_SHARE / size.traps
        windows.append(_quiet(_pieces(sentence, fillers, rng), split, "same_token", weight))
    for _ in range(size.random):
        weight = _SILENT_WINDOWS * (1 - _TRAP_SHARE) / size.random
        windows.append(_quiet(_pieces(rng.choice(fillers), fillers, rng), split, "random", weight))
    return windows


def _quiet(pieces: tuple[str, ...], split: Split, stratum: str, weight: float) -> Window:
    return Window("new", pieces, (0.0,) * len(pieces), split, stratum, weight)


def _pieces(sentence: str, fillers: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """The sentence between two others, as tokens."""
    before, after = rng.sample(list(fillers), 2)
    return tuple(_WORD.findall(f"{before} {sentence} {after}"))


def _length(word: str) -> int:
    return len(_WORD.findall(word))


def _find(pieces: Sequence[str], word: str) -> int:
    """Where the word starts; of several places the first."""
    wanted = [piece.strip() for piece in _WORD.findall(word)]
    bare = [piece.strip() for piece in pieces]
    return next(at for at in range(len(bare)) if bare[at : at + len(wanted)] == wanted)
