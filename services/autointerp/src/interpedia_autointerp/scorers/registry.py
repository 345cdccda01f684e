"""All scorers by name."""

from __future__ import annotations

from collections.abc import Mapping

from interpedia_autointerp.scorers.detection import Detection
from interpedia_autointerp.scorers.embedding import Embedding
from interpedia_autointerp.scorers.fuzzing import Fuzzing
from interpedia_autointerp.scorers.intervention import Intervention
from interpedia_autointerp.scorers.method import Scorer
from interpedia_autointerp.scorers.rule import RuleScorer
from interpedia_autointerp.scorers.simulation import Simulation
from interpedia_autointerp.scorers.surprisal import Surprisal

SCORERS: Mapping[str, Scorer] = {
    each.name: each
    for each in (
        Detection(),
        Fuzzing(),
        Simulation(),
        Embedding(),
        Surprisal(),
        Intervention(),
        RuleScorer(),
    )
}
