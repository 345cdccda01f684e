"""Explanations on the wire, never without what is known of how well they hold."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from interpedia_gateway.features.schemas import Evidence, FeatureName
from interpedia_shared.explanations import MAX_TEXT, clean_text
from interpedia_shared.schemas import Request, Schema

Role = Literal["input", "output", "both"]
MAX_VERDICTS = 2000


class ScoreOut(Evidence):
    """A number that says how well an explanation predicts its feature, and all that it depends on."""

    id: int
    is_headline: bool = Field(description="The one number of its scorer.")
    stratum: str = Field(description="The items it is over: `all`, or a part of them.")
    status: str = Field(description="`ok`; only then is there a value. Else why there is none.")
    value: float | None
    n_failed: int = Field(description="Items whose judgement failed; they count as wrong.")
    n_abstained: int
    split_hash: str = Field(description="The frozen material: the same hash, the same items.")
    details: dict[str, Any]
    run: uuid.UUID
    created_at: datetime


class VerdictOut(Schema):
    """One judgement of one item."""

    scorer: str
    subject: str = Field(
        description="`explanation`, or `shuffled`: another feature's text, for the baseline."
    )
    item: str = Field(description="What was judged, by its id in the frozen material.")
    stratum: str
    truth: bool | None = Field(description="Whether the feature fires on it.")
    state: str = Field(description="`ok`, `abstained` or `failed`.")
    verdict: bool | None
    probability: float | None
    run: uuid.UUID


class ExplanationOut(FeatureName):
    """A text about a feature, with its headline scores."""

    id: int
    text: str
    method: str = Field(description="`human`, or the method that wrote it.")
    author: str = Field(description="Name of the account: of whoever wrote it, or had it written.")
    is_default: bool = Field(description="It is the one that is shown with the feature.")
    best_score: float | None = Field(description="Value of the headline score furthest above chance.")
    hypothesis: dict[str, Any] = Field(description="Its structured form: role, trigger, confidence, …")
    embedding_model: str | None = Field(description="Whose vector it is found by; null until it has one.")
    run: uuid.UUID | None = Field(description="The run that wrote it; null for a person's.")
    created_at: datetime
    scores: list[ScoreOut] = Field(description="Headline scores, newest first.")


class ExplanationDetail(ExplanationOut):
    """An explanation with everything that was found about it."""

    scores: list[ScoreOut] = Field(description="All scores of all runs, newest first.")
    verdicts: list[VerdictOut] = Field(description=f"Newest first, at most {MAX_VERDICTS:,}.")
    n_verdicts: int = Field(description="How many there are.")


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean_text(text)


class ExplanationRequest(Request):
    """A person's explanation."""

    text: str = Field(
        description=f"What the feature does, on one line, at most {MAX_TEXT:,} characters.",
        examples=["rivers and lakes"],
    )
    role: Role | None = Field(
        default=None, description="What it claims: when the feature fires, what firing does, or both."
    )

    _clean = field_validator("text")(_cleaned)


class ExplanationEdit(Request):
    """What to change in one's own explanation."""

    text: str | None = Field(default=None, examples=["rivers, lakes and canals"])
    role: Role | None = None

    _clean = field_validator("text")(_cleaned)

    @model_validator(mode="after")
    def _something(self) -> ExplanationEdit:
        if self.text is None and self.role is None:
            raise ValueError("give text, role or both")
        return self
