"""What is stored of a feature and its corpus, as material is made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.material.text import pieces_of
from interpedia_shared.dashboards import Examples, FeatureStats
from interpedia_shared.ids import FeatureRef
from interpedia_shared.tokens import Vocabulary


@dataclass(frozen=True, slots=True)
class Passage:
    """One context of the corpus."""

    index: int
    ids: NDArray[np.uint32]  # [context_length]
    document: int


@dataclass(frozen=True)
class Build:
    """What all features of one build of dashboards share.

    Attributes:
        first: position of the first token that counts, after the BOS where there is one.
        depth: of the SAE's layer, 0 to 1.
        made_from: corpus, version and model, for the task's record.
    """

    model: str
    sae: str
    version_id: int
    corpus_id: int
    n_contexts: int
    n_tokens: int
    first: int
    vocabulary: Vocabulary
    depth: float | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def pieces(self, ids: Sequence[int] | NDArray[np.uint32]) -> tuple[str, ...]:
        """Tokens as text; an id that the tokenizer does not have is an empty one."""
        size = len(self.vocabulary)
        return tuple(pieces_of([self.vocabulary.token(int(one)) if int(one) < size else b"" for one in ids]))


@dataclass(frozen=True)
class Neighbour:
    """Another feature of the build that is close to this one."""

    index: int
    examples: Examples


@dataclass(frozen=True)
class FeatureSource:
    """One feature as stored.

    Attributes:
        passages: all contexts that its own and its neighbours' examples point at.
    """

    build: Build
    index: int
    stats: FeatureStats
    examples: Examples
    passages: Mapping[int, Passage]
    neighbours: Sequence[Neighbour] = ()

    @property
    def feature(self) -> FeatureRef:
        """Its name."""
        return FeatureRef(self.build.model, self.build.sae, self.index)
