"""`POST /v1/activations`, `/v1/activations/top`, `/v1/lens`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from interpedia_shared.contracts.live.requests import (
    MAX_TEXTS,
    Answer,
    FeatureAt,
    FeatureName,
    ModelRequest,
    Text,
    VectorAt,
)
from interpedia_shared.ids import Slug
from interpedia_shared.schemas import Schema


class ActivationsRequest(ModelRequest):
    """Texts, and what to read on them: features, whole SAEs (sparse), directions; at least one."""

    texts: list[Text] = Field(
        default_factory=list[str], max_length=MAX_TEXTS, examples=[["She said that her sister"]]
    )
    token_ids: list[list[int]] = Field(
        default_factory=list[list[int]],
        max_length=MAX_TEXTS,
        description="Instead of texts: rows of token ids as they are, BOS included if it is wanted.",
    )
    features: list[FeatureAt] = Field(default_factory=list[FeatureAt], max_length=1024)
    saes: list[Slug] = Field(
        default_factory=list[str], max_length=16, description="All active features of these SAEs, sparse."
    )
    vectors: list[VectorAt] = Field(default_factory=list[VectorAt], max_length=64)
    prepend_bos: bool = True
    ignore_bos: bool = Field(default=True, description="Values at BOS are null: they mean nothing there.")

    def features_named(self) -> list[FeatureAt]:
        """The features asked for."""
        return self.features

    def saes_named(self) -> list[str]:
        """SAEs asked for whole or by a feature."""
        return list(dict.fromkeys([*self.saes, *super().saes_named()]))

    @model_validator(mode="after")
    def _something(self) -> ActivationsRequest:
        if not (self.features or self.saes or self.vectors):
            raise ValueError("give features, saes or vectors")
        if bool(self.texts) == bool(self.token_ids):
            raise ValueError("give either texts or token_ids, with at least one row")
        if not all(self.token_ids):
            raise ValueError("a row of token_ids is empty")
        return self


class FeatureOnText(FeatureName):
    """A feature's activation at each token."""

    values: list[float | None] = Field(description="One per token; null where the token is ignored.")
    max: float | None
    max_position: int | None
    max_token: str | None


class VectorOnText(Schema):
    """The dot product of a direction with what is at its hook, at each token."""

    vector: int = Field(description="Which of the request's vectors, from 0.")
    hook: str
    values: list[float | None]
    max: float | None
    max_position: int | None
    max_token: str | None


class SparseOnText(Schema):
    """All non-zero activations of one SAE: three arrays of one length, by position, then feature."""

    sae: str
    positions: list[int]
    features: list[int]
    values: list[float]


class ActivationsOnText(Schema):
    """One text."""

    tokens: list[str]
    token_ids: list[int]
    features: list[FeatureOnText]
    vectors: list[VectorOnText]
    saes: list[SparseOnText]


class ActivationsOut(Answer):
    """As many results as texts, in their order."""

    results: list[ActivationsOnText]


class TopRequest(ModelRequest):
    """A text, and one or many SAEs; which features does it light up?"""

    text: Text
    saes: list[Slug] = Field(min_length=1, max_length=64, examples=[["7-res-3k", "15-res-3k"]])
    k: int = Field(default=10, ge=1, le=1000, description="Features; per token when `by` is token (≤ 100).")
    by: Literal["max", "positions", "token"] = Field(
        default="max",
        description="Rank by the maximum over the text, by the sum over `positions`, or at each token.",
    )
    positions: list[int] | None = Field(default=None, min_length=1, max_length=4096)
    prepend_bos: bool = True
    ignore_bos: bool = True
    min_density: float | None = Field(default=None, ge=0, le=1, description="Applied before the top-k.")
    max_density: float | None = Field(default=None, ge=0, le=1, description="Applied before the top-k.")
    with_values: bool = Field(default=False, description="Give each feature's value at every token as well.")

    def saes_named(self) -> list[str]:
        """The SAEs asked for."""
        return list(dict.fromkeys(self.saes))

    @model_validator(mode="after")
    def _positions_fit(self) -> TopRequest:
        if (self.by == "positions") != (self.positions is not None):
            raise ValueError("positions go with by=positions, and are needed there")
        if self.by == "token" and self.k > 100:
            raise ValueError(f"k is at most 100 with by=token, not {self.k}")
        if None not in (self.min_density, self.max_density) and self.min_density > self.max_density:  # type: ignore[operator]
            raise ValueError("min_density is above max_density")
        return self


class TopFeature(FeatureName):
    """A feature that the text activates."""

    value: float = Field(description="What it was ranked by.")
    position: int = Field(description="Where it is largest, of the positions that count.")
    token: str
    density: float | None = Field(default=None, description="Stored, from the SAE's corpus.")
    max_activation: float | None = Field(default=None, description="Stored; null without dashboards.")
    explanation: str | None = Field(default=None, description="The feature's default explanation.")
    values: list[float | None] | None = None


class TopAtToken(Schema):
    """The features at one token."""

    position: int
    token: str
    top: list[TopFeature]


class TopOut(Answer):
    """`results` by rank; `by_token` instead when asked for per token."""

    tokens: list[str]
    token_ids: list[int]
    results: list[TopFeature]
    by_token: list[TopAtToken] | None = None


class LensRequest(ModelRequest):
    """The logit lens: what each layer's stream would predict."""

    text: Text
    layers: list[int] | None = Field(default=None, min_length=1, max_length=256, description="null = all.")
    positions: list[int] | None = Field(
        default=None, min_length=1, max_length=4096, description="null = all."
    )
    k: int = Field(default=5, ge=1, le=50)
    prepend_bos: bool = True


class LensCell(Schema):
    """One layer at one position; arrays of k, most probable first."""

    token_ids: list[int]
    tokens: list[str]
    probabilities: list[float]
    entropy: float = Field(description="Of the whole distribution, in nats.")
    next_token_rank: int | None = Field(description="Rank from 0 of the token that follows; null at the end.")
    next_token_probability: float | None


class LensLayer(Schema):
    """One layer's stream (`blocks.L.hook_resid_post`) through final norm and unembedding."""

    layer: int
    hook: str
    cells: list[LensCell] = Field(description="One per position asked for.")


class LensOut(Answer):
    """Layers in ascending order."""

    tokens: list[str]
    token_ids: list[int]
    positions: list[int]
    layers: list[LensLayer]
