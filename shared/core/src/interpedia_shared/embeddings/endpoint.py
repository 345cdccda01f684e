"""Vectors from an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from interpedia_shared.embeddings.embedder import WIDTH, EmbeddingRefused, EmbeddingUnavailable
from interpedia_shared.embeddings.settings import EmbeddingSettings

log = structlog.get_logger(__name__)
RETRY_AFTER_S = 5
REFUSALS = (400, 413, 422)
"""What endpoints say to texts that are too long for their model."""


class EndpointEmbedder:
    """Asks `POST {base_url}/embeddings` for vectors of 384 numbers."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._model = settings.model or ""
        self._batch = settings.batch
        key = settings.api_key
        self._client = httpx.Client(
            base_url=settings.base_url or "",
            timeout=settings.timeout_s,
            headers={} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"},
            trust_env=False,
        )

    @property
    def model(self) -> str:
        """The endpoint's name of the model."""
        return self._model

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [len(texts), 384], rows of length 1.

        Raises:
            EmbeddingUnavailable: the endpoint does not answer, refuses, or sends something else.
        """
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        for first in range(0, len(texts), self._batch):
            part = list(texts[first : first + self._batch])
            vectors[first : first + len(part)] = _vectors(self._ask(part), len(part))
        return vectors

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, texts: list[str]) -> Any:
        # an empty text is refused by many endpoints
        body = {"model": self._model, "input": [text or " " for text in texts], "dimensions": WIDTH}
        try:
            answer = self._client.post("embeddings", json={**body, "encoding_format": "float"})
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status in REFUSALS:
                raise EmbeddingRefused(f"The embedding endpoint refuses a text with {status}.") from error
            raise _unavailable(f"it answers with {status}", error) from error
        except (httpx.HTTPError, ValueError) as error:
            raise _unavailable("it does not answer as it should", error) from error


def _vectors(answer: Any, count: int) -> NDArray[np.float32]:
    """The vectors of an answer in the order of the texts, as unit vectors."""
    try:
        found = sorted(answer["data"], key=lambda item: item["index"])
        vectors = np.array([item["embedding"] for item in found], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise _unavailable("its answer holds no vectors", error) from error
    if vectors.shape != (count, WIDTH):
        raise _unavailable(f"it sent vectors of shape {vectors.shape}, not ({count}, {WIDTH})", None)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not lengths.all():
        raise _unavailable("it sent vectors that are not finite or have no direction", None)
    return vectors / lengths


def _unavailable(fact: str, error: Exception | None) -> EmbeddingUnavailable:
    log.warning("embedding_endpoint_failed", fact=fact, error=type(error).__name__ if error else None)
    return EmbeddingUnavailable(
        f"The embedding endpoint cannot be used: {fact}.", retry_after_s=RETRY_AFTER_S
    )
