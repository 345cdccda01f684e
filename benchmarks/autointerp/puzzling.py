"""Do the scorers put the true explanation first, with a judge that is wrong in a tenth of the cases?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.autointerp.asking import Asking, asking, endpoint
from benchmarks.autointerp.throughput import settings_of
from interpedia_autointerp.explainers import How
from interpedia_autointerp.puzzles import (
    CLAIMS,
    Puzzle,
    Ranking,
    all_puzzles,
    rank,
    share_beaten,
    share_right,
)
from interpedia_autointerp.scorers import SCORERS, LiveAnswerer

ERROR = 0.1


def measure(url: str, work: Path) -> dict[str, Any]:
    """The share of puzzles by scorer, through a real endpoint."""
    with endpoint(work, latency_s=0.0, error=ERROR) as base_url:
        return asyncio.run(_measure(url, base_url))


async def _measure(url: str, base_url: str) -> dict[str, Any]:
    async with asking(url, settings_of(base_url)) as it:
        return {
            "detection": await _ranked(it, "detection", all_puzzles()),
            # it shows where in a text the feature is: only puzzles that a word decides are for it
            "fuzzing": await _ranked(it, "fuzzing", [each for each in all_puzzles() if each.is_local]),
        }


async def _ranked(it: Asking, scorer: str, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
    async def one(puzzle: Puzzle) -> Ranking:
        answerer = LiveAnswerer(puzzle.task.feature, it.caller, it.run_id, it.job_id)
        return await rank(SCORERS[scorer], puzzle, How(), answerer=answerer, with_rule=True)

    rankings = await asyncio.gather(*map(one, puzzles))
    return {
        "puzzles": len(rankings),
        "right": share_right(rankings, CLAIMS[scorer]),
        "claims": sorted(CLAIMS[scorer]),
        "beaten": dict(share_beaten(rankings)),
    }
