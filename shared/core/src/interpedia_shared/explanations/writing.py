"""New explanations, with the columns that searches filter by."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Integer, any_, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from interpedia_shared.db.models import SAE, Explanation, Feature
from interpedia_shared.db.session import WriteSession
from interpedia_shared.explanations.defaults import choose_default

HUMAN = "human"
"""`method` of what people write."""
MAX_TEXT = 2_000
"""Characters of an explanation."""


@dataclass(frozen=True)
class NewExplanation:
    """One explanation to be written.

    Attributes:
        feature_idx: of which feature.
        text: cleaned by `clean_text`.
        method: who made it: a method of the autointerp service, or `human`.
        hypothesis: the structured form.
        embedding: shape [384], with the name of the model that made it; None to have it made later.
    """

    feature_idx: int
    text: str
    method: str
    account_id: int
    run_id: uuid.UUID | None = None
    hypothesis: dict[str, Any] = field(default_factory=dict[str, Any])
    embedding: NDArray[np.float32] | None = None
    embedding_model: str | None = None


def clean_text(text: str) -> str:
    """A text on one line.

    Raises:
        ValueError: nothing is left, it is too long, or it holds characters that show nothing or turn the
            direction of writing.
    """
    cleaned = " ".join(text.split())
    if not cleaned:
        raise ValueError("is empty")
    if len(cleaned) > MAX_TEXT:
        raise ValueError(f"has {len(cleaned)} characters, the limit is {MAX_TEXT}")
    for character in cleaned:
        if _is_hidden(character):
            raise ValueError(f"holds the character U+{ord(character):04X}, which does not show")
    return cleaned


def _is_hidden(character: str) -> bool:
    """Control characters, half surrogate pairs, turns of direction, and tags: letters nobody sees."""
    return (
        unicodedata.category(character) in {"Cc", "Cs"}
        or unicodedata.bidirectional(character) in _TURNS
        or "\U000e0000" <= character <= "\U000e007f"
    )


_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


async def add_explanations(session: WriteSession, sae_id: int, rows: Sequence[NewExplanation]) -> list[int]:
    """Write explanations of features of one SAE and choose the defaults anew; gives their ids, in order.

    Density (of the current build) and release are copied into each row, since searches filter by them.
    """
    if not rows:
        return []
    place = (
        await session.execute(select(SAE.release_id, SAE.current_version_id).where(SAE.id == sae_id))
    ).one()
    indices = sorted({row.feature_idx for row in rows})
    densities = await _densities(session, place.current_version_id, indices)
    statement = insert(Explanation).returning(Explanation.id, sort_by_parameter_order=True)
    values = [
        {
            "sae_id": sae_id,
            "feature_idx": row.feature_idx,
            "text": row.text,
            "method": row.method,
            "account_id": row.account_id,
            "run_id": row.run_id,
            "hypothesis": row.hypothesis,
            "density": densities.get(row.feature_idx),
            "release_id": place.release_id,
            "embedding": None if row.embedding is None else row.embedding.tolist(),
            "embedding_model": None if row.embedding is None else row.embedding_model,
        }
        for row in rows
    ]
    ids = list(await session.scalars(statement, values))
    await choose_default(session, sae_id, indices)
    return ids


_REFRESH = text(
    """
    UPDATE explanation SET density = feature.density, release_id = sae.release_id
    FROM sae JOIN feature ON feature.sae_version_id = sae.current_version_id
    WHERE sae.id = :sae_id AND explanation.sae_id = sae.id AND explanation.feature_idx = feature.idx
        AND explanation.feature_idx >= :first AND explanation.feature_idx < :behind
        AND (explanation.density, explanation.release_id) IS DISTINCT FROM (feature.density, sae.release_id)
    """
)


async def refresh_copies(session: WriteSession, sae_id: int, features: range) -> None:
    """Copy density and release anew for some features: another build became current.

    A changed row is entered anew into every index, milliseconds for that of the vectors: a few hundred
    features at a time.
    """
    bounds = {"first": features.start, "behind": features.stop}
    await session.execute(_REFRESH, {"sae_id": sae_id, **bounds})


async def _densities(
    session: WriteSession, version_id: int | None, indices: Sequence[int]
) -> dict[int, float]:
    if version_id is None:
        return {}
    statement = select(Feature.idx, Feature.density).where(
        Feature.sae_version_id == version_id, Feature.idx == any_(literal(list(indices), ARRAY(Integer)))
    )
    found: dict[int, float] = {}
    for index, density in await session.execute(statement):
        found[index] = density
    return found
