"""What an embedder is, and how a process gets its one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.embeddings.settings import EmbeddingSettings
from interpedia_shared.problems import Unavailable

WIDTH = 384
"""Numbers in a vector: what the schema stores."""


class EmbeddingUnavailable(Unavailable):
    """The model that makes vectors is not installed, not the expected one, or its endpoint fails."""


class EmbeddingRefused(EmbeddingUnavailable):
    """The endpoint works, but not for one of these texts."""


class Embeds(Protocol):
    """Turns texts into unit vectors. Threads may share it; it blocks, so call it in one."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [len(texts), WIDTH], rows of length 1.

        Raises:
            EmbeddingUnavailable: no vectors can be made right now.
        """
        ...


class Embedder(Embeds, Protocol):
    """With a name, and with an end."""

    @property
    def model(self) -> str:
        """Its name, stored with every vector."""
        ...

    def close(self) -> None:
        """Let go of connections, if it has any."""
        ...


def embed_each(embedder: Embeds, texts: Sequence[str]) -> list[NDArray[np.float32] | EmbeddingRefused]:
    """A vector of shape [WIDTH] for each text, or why it alone has none.

    Raises:
        EmbeddingUnavailable: no vectors can be made right now.
    """
    try:
        return list(embedder.embed(texts))
    except EmbeddingRefused as error:
        if len(texts) == 1:
            return [error]
    return [found for text in texts for found in embed_each(embedder, [text])]


def load_embedder(settings: EmbeddingSettings) -> Embedder:
    """The embedder of the settings; the bundled one takes half a second and 220 MB, so once, in a thread.

    Raises:
        EmbeddingUnavailable: the bundled weights are not installed, or not the expected ones.
    """
    if settings.base_url is not None and settings.model is not None:
        from interpedia_shared.embeddings.endpoint import EndpointEmbedder

        return EndpointEmbedder(settings)
    # numpy's linear algebra, tokenizers and safetensors: only for processes that embed
    from interpedia_shared.embeddings.minilm import MiniLM

    return MiniLM.load()
