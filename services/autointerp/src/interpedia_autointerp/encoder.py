"""The text encoder of the settings, loaded when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.embeddings import (
    Embedder,
    EmbeddingUnavailable,
    load_embedder,
    load_embedding_settings,
)


class LazyEncoder:
    """Implements `material.Embedder`."""

    @cached_property
    def loaded(self) -> Embedder:
        """The encoder itself.

        Raises:
            EmbeddingUnavailable: it is not installed.
        """
        return load_embedder(load_embedding_settings())

    @property
    def model(self) -> str:
        """Its name, for provenance."""
        return self.loaded.model

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [n, 384], rows of length 1."""
        return self.loaded.embed(texts)


def installed_encoder() -> LazyEncoder | None:
    """The encoder, loaded; None when it is not installed. Takes half a second."""
    found = LazyEncoder()
    try:
        _ = found.loaded
    except EmbeddingUnavailable:
        return None
    return found
