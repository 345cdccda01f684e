"""Texts as vectors: for the search over explanations, near misses and near duplicates.

A vector is only comparable with vectors of the same model, so the model's name is stored with every one.
"""

from __future__ import annotations

from interpedia_shared.embeddings.embedder import (
    WIDTH,
    Embedder,
    EmbeddingRefused,
    EmbeddingUnavailable,
    embed_each,
    load_embedder,
)
from interpedia_shared.embeddings.settings import EmbeddingSettings, load_embedding_settings

__all__ = [
    "WIDTH",
    "Embedder",
    "EmbeddingRefused",
    "EmbeddingSettings",
    "EmbeddingUnavailable",
    "embed_each",
    "load_embedder",
    "load_embedding_settings",
]
