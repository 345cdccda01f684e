"""Vectors for explanations, so that they are found by meaning."""

from __future__ import annotations

from interpedia_autointerp.embed.job import KIND, EmbedExplanations
from interpedia_autointerp.embed.repository import Wanted

__all__ = ["KIND", "EmbedExplanations", "Wanted"]
