"""Does a scorer put the true explanation first?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from interpedia_autointerp.explainers.method import How
from interpedia_autointerp.puzzles.puzzle import Kind, Puzzle
from interpedia_autointerp.scorers.method import Basis, Scorer
from interpedia_autointerp.scorers.running import Answerer, judge
from interpedia_autointerp.scorers.verdict import ScoreValue

KINDS: frozenset[Kind] = frozenset({"too_broad", "too_narrow", "wrong_context", "effect"})
CLAIMS: Mapping[str, frozenset[Kind]] = {
    "detection": KINDS,
    "simulation": KINDS,
    "fuzzing": frozenset({"too_narrow", "effect"}),
}
"""Kinds of false explanations that a scorer is made to see. Fuzzing shows where in a text the feature is, and
so cannot see that an explanation fits other texts as well; embeddings are blind to too much for any claim."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The headline of each explanation of one puzzle, the true one first; None where there is none."""

    puzzle: str
    scorer: str
    kinds: tuple[Kind, ...]
    scores: tuple[ScoreValue, ...]

    @property
    def values(self) -> tuple[float | None, ...]:
        """The numbers."""
        return tuple(score.value for score in self.scores)

    def is_right(self, kinds: Collection[Kind] = KINDS) -> bool:
        """The true one has a number, and it is above those of these kinds. A tie is no success."""
        return all(is_beaten for kind, is_beaten in self.beaten().items() if kind in kinds)

    def beaten(self) -> dict[Kind, bool]:
        """For each kind of false explanation, whether the true one is above it."""
        true = self.values[0]
        return {
            kind: true is not None and (value is None or value < true)
            for kind, value in zip(self.kinds[1:], self.values[1:], strict=True)
        }


async def rank(
    scorer: Scorer, puzzle: Puzzle, how: How, *, answerer: Answerer, with_rule: bool = False
) -> Ranking:
    """Score all explanations of a puzzle.

    Raises:
        What the answerer raises.
    """
    scores: list[ScoreValue] = []
    for candidate in puzzle.candidates:
        hypothesis = candidate.hypothesis(with_rule=with_rule)
        judged = await judge(scorer, puzzle.task, {"explanation": hypothesis}, how, answerer=answerer)
        scores.append(scorer.aggregate(Basis(puzzle.task, judged.verdicts["explanation"], seed=how.seed))[0])
    kinds: tuple[Kind, ...] = tuple(candidate.kind for candidate in puzzle.candidates)
    return Ranking(puzzle.name, scorer.name, kinds, tuple(scores))


def share_right(rankings: Sequence[Ranking], kinds: Collection[Kind] = KINDS) -> float:
    """Of the puzzles, those on which the true explanation came first, before those of these kinds."""
    return sum(ranking.is_right(kinds) for ranking in rankings) / len(rankings) if rankings else 0.0


def share_beaten(rankings: Sequence[Ranking]) -> Mapping[Kind, float]:
    """For each kind of false explanation, how often the true one was above it."""
    found: dict[Kind, list[bool]] = {}
    for ranking in rankings:
        for kind, is_beaten in ranking.beaten().items():
            found.setdefault(kind, []).append(is_beaten)
    return {kind: sum(each) / len(each) for kind, each in sorted(found.items())}
