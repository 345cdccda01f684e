"""What all live requests and answers share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from interpedia_shared.ids import FeatureRef, Slug
from interpedia_shared.schemas import Request, Schema

MAX_TEXT_CHARACTERS = 100_000
MAX_TEXTS = 64
MAX_VECTOR = 65_536

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
HookName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class FeatureAt(Request):
    """A feature of the request's model: `{"sae": "15-res-3k", "feature": 650}` or `"model/sae/650"`."""

    sae: Slug = Field(examples=["15-res-3k"])
    feature: int = Field(ge=0, lt=2**63, examples=[650])
    model: Slug | None = Field(default=None, exclude=True, description="Checked against the request's model.")

    @model_validator(mode="before")
    @classmethod
    def _from_ref(cls, data: Any) -> Any:
        if isinstance(data, str):
            ref = FeatureRef.parse(data)
            return {"model": ref.model, "sae": ref.sae, "feature": ref.index}
        return data


class VectorAt(Request):
    """A direction of one's own at a hook; activation = dot product with what is at the hook."""

    vector: list[Finite] = Field(min_length=1, max_length=MAX_VECTOR)
    hook: HookName = Field(examples=["blocks.15.hook_resid_post"])


class ModelRequest(Request):
    """Names the model that the request is for."""

    model: Slug = Field(examples=["smollm2-135m-instruct"])
    deadline_s: float | None = Field(
        default=None, gt=0, le=600, description="Give up after so long; null = the host's own limit."
    )

    def features_named(self) -> list[FeatureAt]:
        """Every feature that the request names, with the places overridden by requests that have some."""
        return []

    def saes_named(self) -> list[str]:
        """Every SAE that the request names, each once, in order."""
        return list(dict.fromkeys([at.sae for at in self.features_named()]))

    @model_validator(mode="after")
    def _refs_are_of_this_model(self) -> ModelRequest:
        for at in self.features_named():
            if at.model is not None and at.model != self.model:
                raise ValueError(f"feature {at.model}/{at.sae}/{at.feature} is not of model {self.model}")
        return self


class Message(Request):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_TEXT_CHARACTERS)


class Timings(Schema):
    """Where the time went, in milliseconds of wall time."""

    tokenize_ms: float
    queue_ms: float = Field(description="From admission to the start of the computation.")
    run_ms: float
    total_ms: float


class SAESource(Schema):
    """The weights of one SAE that took part."""

    sae: str
    hook: str
    weights_sha256: str | None
    version: int | None = Field(description="The build that density and maximum were taken from.")


Bos = Literal["prepended", "none", "mixed", "as_given"]
"""Whether texts begin with the model's BOS token: all, none, some; or rows were given as ids."""


class LiveProvenance(Schema):
    """What the numbers were computed with."""

    model: str
    revision: str | None
    weights_sha256: str | None
    dtype: str
    device: str
    bos: Bos
    saes: list[SAESource] = Field(default_factory=list[SAESource])
    code_version: str


class Answer(Schema):
    """What every live answer carries."""

    timings: Timings
    provenance: LiveProvenance


class FeatureName(Schema):
    """Which feature; as everywhere in the API."""

    ref: str = Field(examples=["smollm2-135m-instruct/15-res-3k/650"])
    model: str
    sae: str
    index: int


class TokenizeRequest(ModelRequest):
    """Text, or a chat in the model's own template; one of the two."""

    text: Text | None = None
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=64)
    prepend_bos: bool = Field(default=True, description="For text; a chat's template decides by itself.")

    @field_validator("messages")
    @classmethod
    def _said_something(cls, value: list[Message] | None) -> list[Message] | None:
        if value is not None and not any(message.content for message in value):
            raise ValueError("all messages are empty")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> TokenizeRequest:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
        return self


class TokenizeOut(Answer):
    """The tokens as the model sees them, up to `limit` of them."""

    token_ids: list[int]
    tokens: list[str] = Field(description="Bytes that are no UTF-8 alone are shown as <0xE2>.")
    count: int = Field(description="Of the whole text.")
    limit: int = Field(description="Most tokens a text may have; of a longer one the first ones are given.")
    is_cut: bool = Field(default=False, description="Whether `count` is above `limit`.")
