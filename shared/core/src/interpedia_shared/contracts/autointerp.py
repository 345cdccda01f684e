"""Bodies of explaining, scoring, red-teaming and benchmarking: the gateway forwards them to autointerp."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from interpedia_shared.ids import FeatureRef, Slug
from interpedia_shared.jobs.schemas import JobOut
from interpedia_shared.schemas import Request, Schema

MAX_FEATURES = 10_000
MAX_TEXT = 20_000
MAX_HYPOTHESIS = 2_000
MAX_METHODS = 16
MAX_TOKENS = 10**12

Ref = Annotated[
    str, StringConstraints(max_length=300), Field(examples=["smollm2-135m-instruct/15-res-3k/650"])
]
SaeRef = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}/[a-z0-9][a-z0-9._-]{0,127}$"),
    Field(examples=["smollm2-135m-instruct/15-res-3k"], description="`model/sae`."),
]
ExplanationId = Annotated[int, Field(ge=1, lt=2**63)]
Intent = Literal["should_fire", "should_not_fire", "control"]


def _example(**body: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


class BudgetLimits(Request):
    """A hard cap: nothing is sent that could pass it. What is paid already counts on a retry."""

    tokens: int | None = Field(
        default=None, ge=0, le=MAX_TOKENS, description="Prompt and answer tokens together."
    )
    money: float | None = Field(
        default=None, ge=0, le=1e9, description="In the unit of the endpoint's prices; it needs prices."
    )

    @property
    def micro(self) -> int | None:
        """Money in millionths."""
        return None if self.money is None else int(self.money * 1_000_000)


class MethodChoice(Request):
    """A method by name with its parameters, as `GET /v1/methods` lists them."""

    name: Slug = Field(examples=["token-lookup"])
    params: dict[str, Any] = Field(default_factory=dict)


class ScorerChoice(MethodChoice):
    """A scorer by name with its parameters."""

    name: Slug = Field(examples=["rule"])


class FeatureChoice(Request):
    """Which features: given ones, or those of whole SAEs that the filters let through."""

    features: list[Ref] = Field(default_factory=list[str], max_length=MAX_FEATURES)
    saes: list[SaeRef] = Field(default_factory=list[str], max_length=64)
    min_density: float | None = Field(default=None, ge=0, le=1)
    max_density: float | None = Field(default=None, ge=0, le=1)
    sample: int | None = Field(
        default=None, ge=1, description="So many of each SAE's, drawn by `sample_seed`; null = all."
    )
    sample_seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("features")
    @classmethod
    def _are_refs(cls, value: list[str]) -> list[str]:
        for ref in value:
            FeatureRef.parse(ref)
        if len(set(value)) != len(value):
            raise ValueError("a feature is named twice")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> FeatureChoice:
        if bool(self.features) == bool(self.saes):
            raise ValueError("give either features or saes")
        if None not in (self.min_density, self.max_density) and self.min_density > self.max_density:  # type: ignore[operator]
            raise ValueError("min_density is above max_density")
        return self


class _Work(Request):
    """What all orders share."""

    endpoint: Slug = Field(default="default", description="Of `GET /v1/endpoints`, for methods with an LLM.")
    seed: int = Field(default=0, ge=0, lt=2**31)
    repeat: int = Field(
        default=0, ge=0, le=100, description="Another number asks anew: stored answers are not used."
    )
    budget: BudgetLimits = Field(default_factory=BudgetLimits)
    verify: bool | None = Field(
        default=None,
        description="Look for near misses by running the live model; null = when an LLM takes part.",
    )
    dry_run: bool = Field(default=False, description="Estimate the cost; call nothing, start nothing.")


class ExplainRequest(FeatureChoice, _Work):
    """Explain features, each by every method; and score the explanations if scorers are given."""

    model_config = _example(
        features=["smollm2-135m-instruct/15-res-3k/650"],
        methods=[{"name": "token-lookup"}],
        scorers=[{"name": "rule"}],
    )

    methods: list[MethodChoice] = Field(min_length=1, max_length=MAX_METHODS)
    scorers: list[ScorerChoice] = Field(default_factory=list[ScorerChoice], max_length=MAX_METHODS)
    only_failed_of: list[uuid.UUID] = Field(
        default_factory=list[uuid.UUID],
        max_length=MAX_METHODS,
        description="Runs of an earlier job: features that one of them explained are left out.",
    )


class ScoreRequest(_Work):
    """Score explanations: given ones, those of a run, or those of features."""

    model_config = _example(explanations=[17], scorers=[{"name": "detection"}], budget={"tokens": 200_000})

    explanations: list[ExplanationId] = Field(default_factory=list[int], max_length=MAX_FEATURES)
    run: uuid.UUID | None = Field(default=None, description="All explanations that this run made.")
    features: list[Ref] = Field(
        default_factory=list[str], max_length=MAX_FEATURES, description="All explanations of these."
    )
    scorers: list[ScorerChoice] = Field(min_length=1, max_length=MAX_METHODS)
    only_failed_of: list[uuid.UUID] = Field(
        default_factory=list[uuid.UUID],
        max_length=MAX_METHODS,
        description="Runs of an earlier job: what one of them gave an ok score is left out.",
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> ScoreRequest:
        if sum(map(bool, (self.explanations, self.run, self.features))) != 1:
            raise ValueError("give one of explanations, run, features")
        return self


class OwnText(Request):
    """A text to try on the feature. Texts of one `pair` differ in the property only."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
    intent: Intent
    pair: int | None = Field(default=None, ge=0, lt=1_000_000)


class RedTeamRequest(_Work):
    """Try to refute a hypothesis: an explanation by id, or a sentence about a feature."""

    model_config = _example(
        feature="smollm2-135m-instruct/15-res-3k/650",
        hypothesis="rivers and lakes",
        texts=[
            {"text": "They swam across the river.", "intent": "should_fire", "pair": 0},
            {"text": "They drove across the country.", "intent": "should_not_fire", "pair": 0},
        ],
        endpoint=None,
    )

    explanation: ExplanationId | None = None
    feature: Ref | None = None
    hypothesis: Annotated[str, StringConstraints(min_length=1, max_length=MAX_HYPOTHESIS)] | None = Field(
        default=None, description="Kept as an explanation of the caller's."
    )
    texts: list[OwnText] = Field(default_factory=list[OwnText], max_length=200)
    endpoint: Slug | None = Field(  # type: ignore[assignment]
        default="default", description="The LLM that writes attacks; null = the given texts alone."
    )
    rounds: int = Field(default=1, ge=1, le=3, description="After each but the last the LLM may revise.")
    per_kind: int = Field(default=8, ge=2, le=16, description="Texts of each kind that the LLM writes.")
    use_kept_texts: bool = Field(
        default=True, description="Also face the texts that people tried this same hypothesis with before."
    )

    @model_validator(mode="after")
    def _consistent(self) -> RedTeamRequest:
        if (self.explanation is None) == (self.feature is None):
            raise ValueError("give either explanation, or feature and hypothesis")
        if (self.feature is None) != (self.hypothesis is None):
            raise ValueError("feature and hypothesis go together")
        if self.feature is not None:
            FeatureRef.parse(self.feature)
        if self.endpoint is None and not self.texts:
            raise ValueError("without an endpoint give texts")
        if self.endpoint is None and self.rounds > 1:
            raise ValueError("rounds above 1 need an endpoint, which revises the hypothesis")
        return self


class BenchmarkRequest(FeatureChoice, _Work):
    """Compare explainers on the same frozen tasks, beside baselines."""

    model_config = _example(
        saes=["smollm2-135m-instruct/15-res-3k"],
        sample=100,
        methods=[{"name": "token-lookup"}, {"name": "ngram"}],
        scorers=[{"name": "rule"}],
    )

    methods: list[MethodChoice] = Field(min_length=1, max_length=MAX_METHODS)
    scorers: list[ScorerChoice] = Field(min_length=1, max_length=MAX_METHODS)


class Amounts(Schema):
    """An estimate: `low` as answers were so far; `high` with the longest texts and answers, each call at the
    bound that a budget reserves for it, and each answer repaired once. A budget is what holds.
    """

    calls: int
    tokens_low: int
    tokens_high: int
    money_low: float | None = Field(description="null where the endpoint has no price")
    money_high: float | None


class EstimateOut(Schema):
    """Answer to a dry run, scaled up from a sample. Nothing was called; the endpoint was not probed."""

    features: int = Field(description="Or explanations, for scoring.")
    sampled: int = Field(description="How many of them the estimate was made from.")
    without_material: int = Field(
        description="Of the sampled: dead, or with too few examples; they cost nothing."
    )
    total: Amounts
    per_feature: Amounts


class WorkAccepted(Schema):
    """The job, and its runs: one for each method or scorer. For a dry run only the estimate."""

    job: JobOut | None = None
    runs: dict[str, uuid.UUID] = Field(
        default_factory=dict[str, uuid.UUID], description="Run by method: `explain:token-lookup`."
    )
    estimate: EstimateOut | None = None


class MethodOut(Schema):
    """A method that this service has."""

    name: str
    kind: Literal["explainer", "scorer"]
    version: str
    summary: str
    needs: list[str] = Field(
        description="With default parameters: llm, embeddings, steering, rule, or more exact."
    )
    prompt: str | None = Field(description="`name@version:sha256` of the prompt; null without an LLM.")
    params: dict[str, Any] = Field(description="JSON schema of the parameters.")


class MethodsOut(Schema):
    """All methods."""

    items: list[MethodOut]


class EndpointOut(Schema):
    """An LLM endpoint of the settings; its key is never shown."""

    name: str
    base_url: str
    model: str
    has_key: bool
    price_in: float | None
    price_cached: float | None
    price_out: float | None
    concurrency: int
    capabilities: dict[str, Any] | None = Field(description="null until it was probed")
    probed_at: datetime | None


class EndpointsOut(Schema):
    """All endpoints."""

    items: list[EndpointOut]


class Spent(Schema):
    """What was used. `paid` calls were made now; others were answered from what is stored."""

    calls: int
    paid_calls: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    money: float


class TriedText(Schema):
    """A text of a red-team and what the feature did on it."""

    id: int
    round: int
    explanation: int | None
    intent: Intent
    author: str = Field(description="`llm`, `corpus`, or the name of the account.")
    pair: int | None
    text: str
    state: str
    tokens: list[str]
    activations: list[float] | None
    max_activation: float | None
    quantile: float | None = Field(
        description="Share of the feature's own examples with a smaller maximum; 0 when it is silent."
    )


class RunOut(Schema):
    """One method at work, with what is needed to repeat it."""

    id: uuid.UUID
    kind: Literal["explain", "score", "redteam", "benchmark"]
    method: str
    method_version: str
    params: dict[str, Any]
    provenance: dict[str, Any]
    job: uuid.UUID | None
    created_at: datetime
    explanations: int
    scores: int
    spent: Spent
    texts: list[TriedText] = Field(default_factory=list[TriedText], description="Of a red-team.")
