"""What the work on explanations needs of a live model and of a text encoder; both are given from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.ids import FeatureRef


@dataclass(frozen=True, slots=True)
class Trace:
    """One text under the model.

    Attributes:
        token_ids, tokens: as the model saw them, BOS included where there was one.
        values: the feature's activation at each token, in the SAE's own scale; 0 where it does not count.
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    values: tuple[float, ...]


class ActivationBackend(Protocol):
    """Runs texts through the feature's model. Any number of rows: the backend cuts them into requests.

    Raises:
        Problem: what the inference service refused, or that it cannot be reached.
    """

    async def on_tokens(self, feature: FeatureRef, rows: Sequence[Sequence[int]]) -> list[Trace]:
        """Rows of token ids as they are, BOS included; one trace for each, in order."""
        ...

    async def on_texts(self, feature: FeatureRef, texts: Sequence[str]) -> list[Trace]:
        """Texts, with a BOS put before where the model has one; one trace for each, in order."""
        ...


class Steerer(Protocol):
    """Generates with a feature turned up."""

    async def steer(
        self,
        feature: FeatureRef,
        prompts: Sequence[str],
        strengths: Sequence[float],
        *,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """Continuation i of prompts[i] with strengths[i] times the feature's maximum added; 0 for none."""
        ...


class Embedder(Protocol):
    """Turns texts into unit vectors. Called in a thread: it may take its time."""

    @property
    def model(self) -> str:
        """Its name, for provenance."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [n, 384], rows of length 1."""
        ...
