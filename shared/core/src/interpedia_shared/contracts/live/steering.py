"""`POST /v1/steer`: generate with and without interventions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from interpedia_shared.contracts.live.requests import (
    MAX_VECTOR,
    Answer,
    FeatureAt,
    Finite,
    HookName,
    LiveProvenance,
    Message,
    ModelRequest,
    Text,
)
from interpedia_shared.ids import Slug
from interpedia_shared.schemas import Request, Schema

Method = Literal["add", "clamp", "scale", "ablate", "orthogonal", "project_cap"]
OutputName = Literal["default", "steered"]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class InterventionSpec(Request):
    """One change of the stream: of a feature (`sae`, `feature`) or along a raw direction (`vector`, `hook`).

    With d the feature's decoder row (or the vector), d̂ = d/‖d‖, f the feature's activation, s the strength
    and u the unit (the feature's largest activation on its corpus, or 1):

    | method | feature | vector |
    |---|---|---|
    | `add` | h + s·u·d | h + s·d |
    | `clamp` | h + (s·u − f)·d | h + (s − h·d̂)·d̂ |
    | `scale` | h + (s·f − f)·d | h + (s − 1)(h·d̂)·d̂ |
    | `ablate` | h − f·d | h − (h·d̂)·d̂ |
    | `orthogonal` | h − s·(h·d̂)·d̂ | the same |
    | `project_cap` | h + min(0, s − h·d̂)·d̂ | the same |

    The reconstruction error stays in the stream: the difference of two decodings is added. `ablate` of a
    feature takes out more of d where that is needed for the encoder to read 0 afterwards; `clamp` to 0 takes
    out f·d and no more, as `/v1/ablate` does. `add` and
    `orthogonal` with strength 0, and `scale` with 1, change nothing. Features of one SAE are read from the
    same stream and changed together; everything else is applied in the order given.
    """

    sae: Slug | None = None
    feature: int | None = Field(default=None, ge=0, lt=2**63)
    vector: list[Finite] | None = Field(default=None, min_length=1, max_length=MAX_VECTOR)
    hook: HookName | None = None
    method: Method = "add"
    strength: Finite = Field(default=1.0, ge=-1e6, le=1e6)
    unit: Literal["max_activation", "raw"] | None = Field(
        default=None,
        description="Of the strength of `add` and `clamp`: max_activation (default for features) or raw. The "
        "maximum is the one in the SAE's dashboards: while it has none, or for a feature that never fired on "
        "their corpus, `max_activation`, the default as well, is refused with 422 and `raw` must be given.",
    )
    positions: Literal["all", "prompt", "generated"] | list[int] = Field(
        default="all",
        description="Where it acts; BOS is left alone unless its position is named. Numbers count from the "
        "first token of the prompt, BOS included.",
    )

    @model_validator(mode="after")
    def _names_one_direction(self) -> InterventionSpec:
        if (self.sae is None) != (self.feature is None) or (self.vector is None) != (self.hook is None):
            raise ValueError("sae goes with feature, and vector with hook")
        if (self.sae is None) == (self.vector is None):
            raise ValueError("give either sae and feature, or vector and hook")
        if self.vector is not None and self.unit == "max_activation":
            raise ValueError("unit max_activation is for features: a vector has no corpus")
        if self.vector is not None and not any(self.vector):
            raise ValueError("vector is all zeros")
        if isinstance(self.positions, list) and any(position < 0 for position in self.positions):
            raise ValueError("positions count from 0")
        return self


class SteerRequest(ModelRequest):
    """A prompt or a chat, what to change, and how to sample. Equal requests give equal answers."""

    prompt: Text | None = Field(default=None, examples=["My favourite animal is"])
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=64)
    interventions: list[InterventionSpec] = Field(default_factory=list[InterventionSpec], max_length=32)
    outputs: list[OutputName] = Field(
        default_factory=lambda: ["default", "steered"], min_length=1, max_length=2
    )
    max_new_tokens: int = Field(default=32, ge=1, le=1024)
    temperature: float = Field(
        default=0.7, ge=0, le=5, description="0, or less than 1e-6, takes the most probable token."
    )
    top_k: int = Field(default=0, ge=0, le=1_000_000, description="0 = no limit.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1, description="Relative to the most probable token.")
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2, description="Per occurrence, of logits.")
    presence_penalty: float = Field(default=0.0, ge=-2, le=2, description="Once for each token used.")
    repetition_penalty: float = Field(
        default=1.0,
        ge=0.01,
        le=5,
        description="Divides positive and multiplies negative logits of used tokens.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Default and steered start from the same one.")
    stop: list[Stop] = Field(default_factory=list[str], max_length=8, description="Not part of the text.")
    n_logprobs: int = Field(default=0, ge=0, le=20, description="Most probable tokens given at each step.")
    prepend_bos: bool = Field(default=True, description="For a prompt; a chat's template decides by itself.")
    skip_special_tokens: bool = Field(
        default=True, description="Interventions leave the special tokens of a chat's template alone."
    )
    stream: bool = Field(default=False, description="Server-sent events: start, token, done or error.")
    share: bool = Field(
        default=False, description="Keep request and answer under a link; nothing is kept else."
    )

    def features_named(self) -> list[FeatureAt]:
        """The features that are intervened on."""
        return [
            FeatureAt(sae=one.sae, feature=one.feature)
            for one in self.interventions
            if one.sae is not None and one.feature is not None
        ]

    @model_validator(mode="after")
    def _consistent(self) -> SteerRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("outputs names one twice")
        return self


class TokenProbability(Schema):
    """A token that could have come."""

    token_id: int
    token: str
    logprob: float


class GeneratedToken(Schema):
    """One generated token. `logprob` is the model's own, before temperature, penalties and cut-offs."""

    token_id: int
    token: str
    logprob: float
    top: list[TokenProbability] | None = None


class Generation(Schema):
    """One output."""

    text: str = Field(description="Without the prompt, the end token and the stop string.")
    tokens: list[str] = Field(description="All that were generated, end token and stop string included.")
    token_ids: list[int]
    logprobs: list[float]
    top_logprobs: list[list[TokenProbability]] | None = None
    finish_reason: Literal["length", "end_token", "stop"]


class SharedRun(Schema):
    """Where a shared run can be read."""

    id: str
    url: str


class SteerOut(Answer):
    """Default and steered from the same seed; one of them null when it was not asked for."""

    prompt_tokens: list[str]
    prompt_token_ids: list[int]
    default: Generation | None
    steered: Generation | None
    shared: SharedRun | None = None


class StreamedToken(GeneratedToken):
    """Data of a `token` event; `text` is what became readable with this token, maybe nothing yet."""

    output: OutputName
    position: int = Field(description="Among the generated tokens, from 0.")
    text: str


class StreamStart(Schema):
    """Data of the `start` event; `done` has a whole `SteerOut`, `error` a problem."""

    prompt_tokens: list[str]
    prompt_token_ids: list[int]
    outputs: list[OutputName]
    provenance: LiveProvenance
