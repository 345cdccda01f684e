"""Made-up features with a known rule: what a scorer has to get right before it is believed."""

from interpedia_autointerp.puzzles.puzzle import Candidate, Kind, Puzzle, make_puzzle
from interpedia_autointerp.puzzles.ranking import CLAIMS, KINDS, Ranking, rank, share_beaten, share_right
from interpedia_autointerp.puzzles.specs import FILLERS, SPECS


def all_puzzles(seed: int = 0) -> list[Puzzle]:
    """Every puzzle; another seed writes other windows."""
    return [make_puzzle(spec, FILLERS, seed=seed) for spec in SPECS]


__all__ = [
    "CLAIMS",
    "FILLERS",
    "KINDS",
    "SPECS",
    "Candidate",
    "Kind",
    "Puzzle",
    "Ranking",
    "all_puzzles",
    "make_puzzle",
    "rank",
    "share_beaten",
    "share_right",
]
