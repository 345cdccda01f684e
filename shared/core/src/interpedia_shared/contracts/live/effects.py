"""`POST /v1/ablate`, `/v1/attribute`, `/v1/prompt-search`: what features do to what the model says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from interpedia_shared.contracts.live.requests import Answer, FeatureAt, FeatureName, ModelRequest, Text
from interpedia_shared.ids import Slug
from interpedia_shared.schemas import Request, Schema

AnswerText = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class LogitMetric(Request):
    """logsumexp of the logits of `good` minus that of `bad` at one position; each must be a single token."""

    good: list[AnswerText] = Field(min_length=1, max_length=64, examples=[[" her"]])
    bad: list[AnswerText] = Field(default_factory=list[str], max_length=64, examples=[[" his"]])
    position: int | None = Field(default=None, ge=0, description="Whose next token; null = the last.")


class AblateRequest(ModelRequest):
    """A text, and a set of features that are taken out together."""

    text: Text
    features: list[FeatureAt] = Field(min_length=1, max_length=256)
    method: Literal["zero", "mean", "resample"] = Field(
        default="zero",
        description="New value of the features: 0, their mean over all corpus tokens, or their values on "
        "`resample_text`, at a seeded permutation of its positions.",
    )
    resample_text: Text | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    positions: list[int] | None = Field(
        default=None, min_length=1, max_length=4096, description="Where; null = everywhere but BOS."
    )
    metric: LogitMetric | None = None
    k: int = Field(
        default=10, ge=0, le=100, description="Tokens that rose and fell most, at `metric.position`."
    )
    prepend_bos: bool = True

    def features_named(self) -> list[FeatureAt]:
        """The features taken out."""
        return self.features

    @model_validator(mode="after")
    def _text_to_resample(self) -> AblateRequest:
        if (self.method == "resample") != (self.resample_text is not None):
            raise ValueError("resample_text goes with method=resample, and is needed there")
        return self


class TokenEffect(Schema):
    """One position: the loss of the token that follows it, in nats, and how far the prediction moved."""

    position: int
    token: str
    next_token: str | None
    loss_default: float | None
    loss_ablated: float | None
    kl: float = Field(description="KL(default ‖ ablated) of the next-token distribution, in nats.")


class TokenShift(Schema):
    """A token whose logit changed."""

    token_id: int
    token: str
    logit_default: float
    logit_ablated: float
    logprob_default: float
    logprob_ablated: float


class MetricEffect(Schema):
    """The metric with and without the features."""

    default: float
    ablated: float
    change: float
    logits_default: dict[str, float]
    logits_ablated: dict[str, float]


class AblateOut(Answer):
    """What taking the features out did."""

    tokens: list[str]
    token_ids: list[int]
    loss_default: float | None = Field(description="Mean over the positions that have a next token.")
    loss_ablated: float | None
    kl_mean: float
    by_token: list[TokenEffect]
    position: int = Field(description="Where `metric`, `rose` and `fell` are read.")
    metric: MetricEffect | None
    rose: list[TokenShift]
    fell: list[TokenShift]
    n_positions_changed: int = Field(description="Where any of the features had another value.")


class AttributeRequest(ModelRequest):
    """A text, a metric, and SAEs whose features are ranked by their part in it."""

    text: Text
    saes: list[Slug] = Field(min_length=1, max_length=8)
    metric: LogitMetric
    method: Literal["gradient_x_activation", "attribution_patching", "integrated_gradients"] = (
        "gradient_x_activation"
    )
    corrupt_text: Text | None = Field(default=None, description="For attribution_patching; as many tokens.")
    steps: int = Field(default=8, ge=2, le=64, description="Of integrated_gradients.")
    k: int = Field(default=20, ge=1, le=500)
    exact: int = Field(default=10, ge=0, le=100, description="So many of the top ones are ablated for real.")
    prepend_bos: bool = True

    def saes_named(self) -> list[str]:
        """The SAEs asked for."""
        return list(dict.fromkeys(self.saes))

    @model_validator(mode="after")
    def _corrupt_for_patching(self) -> AttributeRequest:
        if (self.method == "attribution_patching") != (self.corrupt_text is not None):
            raise ValueError("corrupt_text goes with method=attribution_patching, and is needed there")
        return self


class AttributedFeature(FeatureName):
    """A feature's part in the metric: positive when it pushes the metric up."""

    attribution: float = Field(description="Summed over positions.")
    by_position: list[float]
    max_activation_here: float
    exact: float | None = Field(
        description="Metric minus metric with the feature ablated (or patched) everywhere but at BOS."
    )
    explanation: str | None = None


class AttributeOut(Answer):
    """Features by exact effect where there is one, then by attribution; by magnitude."""

    tokens: list[str]
    token_ids: list[int]
    position: int
    metric: float
    metric_corrupt: float | None
    results: list[AttributedFeature]


class PromptSearchRequest(ModelRequest):
    """A template of prompts, bundled (by id) or one's own; which features carry the model's answer?"""

    saes: list[Slug] = Field(min_length=1, max_length=8)
    template: str | dict[str, Any] = Field(
        description="Id of a bundled template, a template as an object, or as YAML text.",
        examples=["gendered-pronoun"],
    )
    n: int = Field(default=32, ge=2, le=256, description="Prompts made from the template.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: Literal["gradient_x_activation", "attribution_patching"] = "gradient_x_activation"
    k: int = Field(default=24, ge=1, le=200, description="Features that are ablated for real and ranked.")
    controls: list[str] | None = Field(
        default=None,
        max_length=8,
        description="Bundled templates to compare with; null = chosen by the service.",
    )

    def saes_named(self) -> list[str]:
        """The SAEs searched."""
        return list(dict.fromkeys(self.saes))


class PromptTemplate(Schema):
    """A bundled template."""

    id: str = Field(examples=["gendered-pronoun"])
    title: str
    description: str
    source: str | None = Field(default=None, description="The template as YAML: a start for your own.")


class PromptSearchChecked(Schema):
    """What a host finds of a search before it is begun: the template fits the model's tokenizer."""

    template: str
    n: int
    prompts: list[str] = Field(description="The first few.")
    controls: list[str]
