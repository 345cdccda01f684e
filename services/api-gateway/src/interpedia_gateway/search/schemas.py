"""Answers of the search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interpedia_gateway.features.schemas import FeatureName, TokenOut
from interpedia_shared.jobs import JobOut
from interpedia_shared.schemas import Page, Schema

Mode = Literal["hybrid", "semantic", "keyword"]
By = Literal["meaning", "words", "tokens", "ref"]


class Match(Schema):
    """One of the lists in which a feature was found."""

    by: By = Field(
        description="`meaning`: by the vector of an explanation; `words`: by its words; `tokens`: by tokens "
        "that the feature promotes or peaks on; `ref`: named exactly."
    )
    rank: int = Field(description="Its place in that list, from 1.")
    similarity: float | None = Field(
        default=None,
        description="Cosine of query and explanation, for `meaning`; unrelated texts have about 0.",
    )


class FoundExplanation(Schema):
    """The explanation that matched best; the feature's default where only its tokens did."""

    id: int
    text: str
    method: str = Field(description="`human`, or the method that wrote it.")
    author: str
    is_default: bool
    best_score: float | None = Field(description="Of its scores; null if it has none.")


class SearchHit(FeatureName):
    """One feature found."""

    score: float = Field(
        description="Sum of 1/(60 + rank) over its matches: it orders, and means nothing else."
    )
    matches: list[Match]
    explanation: FoundExplanation | None
    density: float | None = Field(description="null while the SAE has no dashboards")
    max_activation: float | None
    top_logits: list[TokenOut] = Field(description="Tokens it promotes most, best first.")
    peak_tokens: list[TokenOut] = Field(description="Tokens on which its top examples peak.")


class SearchOut(Page[SearchHit]):
    """Features, best first. There is one page: `next_cursor` is null; ask for a larger `limit`."""

    query: str
    mode: Mode
    embedding_model: str | None = Field(description="Whose vectors were compared; null if none were.")
    note: str | None = Field(
        default=None, description="What a hybrid search had to do without, if anything; else null."
    )


class EmbeddingAccepted(Schema):
    """The job."""

    job: JobOut
