"""Features on the wire. Activations are in the SAE's own scale; positions count from 0."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from interpedia_shared.contracts.provenance import BuildProvenance
from interpedia_shared.schemas import Request, Schema

MAX_BATCH = 200
MAX_BATCH_DASHBOARDS = 20
Reason = Literal["top", "interval", "random"]


class TokenOut(Schema):
    """One token."""

    id: int
    token: str = Field(description="Its text; bytes that are no UTF-8 alone appear as `<0xE2>`.")


class TokenEffect(TokenOut):
    """One token and how much the feature's direction adds to its logit."""

    value: float = Field(description="Nats per unit of activation.")


class FeatureName(Schema):
    """How a feature is named anywhere."""

    ref: str = Field(examples=["smollm2-135m-instruct/15-res-3k/650"])
    model: str
    sae: str
    index: int


class Evidence(Schema):
    """A score of an explanation: never without number, interval, judge and baseline."""

    scorer: str
    metric: str = Field(description="What `value` is.")
    value: float | None
    ci_low: float | None = Field(description="Lower end of the 95 % interval.")
    ci_high: float | None
    n: int = Field(description="Items judged.")
    baseline: float | None = Field(description="The same for another feature's text.")
    judge: str | None = Field(description="Endpoint and model, or the encoder; null for executed rules.")


class ShownExplanation(Schema):
    """The explanation that is shown with a feature: the one whose score is furthest above chance."""

    id: int
    text: str
    method: str = Field(description="`human`, or the method that wrote it.")
    author: str
    best_score: float | None
    evidence: Evidence | None = Field(description="null while it has no score")


class FeatureSummary(FeatureName):
    """A feature as lists show it."""

    density: float = Field(description="Fraction of counted tokens on which it is non-zero, 0..1.")
    n_active_tokens: int
    max_activation: float
    mean_activation: float = Field(description="Over the tokens on which it is non-zero.")
    top_logits: list[TokenOut] = Field(description="Tokens it promotes most, best first.")
    peak_tokens: list[TokenOut] = Field(description="Tokens on which its top examples peak.")
    explanation: ShownExplanation | None = Field(description="The default of its explanations.")
    n_explanations: int


class HistogramOut(Schema):
    """Equal-width bins, bin i from `edges[i]` to `edges[i + 1]`; empty when there was nothing to count."""

    edges: list[float]
    counts: list[int]


class Moments(Schema):
    """Over the tokens on which the feature is non-zero."""

    mean: float
    std: float = Field(description="Of the population, not of a sample.")


class IntervalOut(Schema):
    """One of the equal parts between 0 and the feature's largest magnitude."""

    k: int = Field(description="1 is the lowest.")
    low: float
    high: float


class IntervalCount(IntervalOut):
    """An interval and the contexts whose maximum lies in it."""

    n_contexts: int


class DocumentOut(Schema):
    """Where a context's text comes from."""

    name: str
    source: str
    licence: str
    token_offset: int = Field(description="The context's first text token, counted in the document.")


class SparseActivations(Schema):
    """The feature's non-zero values on a context; it is zero everywhere else."""

    positions: list[int]
    values: list[float] = Field(description="Stored with a relative error below 2**-11.")


class ExampleOut(Schema):
    """One context, why it was kept, and the feature on it."""

    context: int = Field(description="Row number in the corpus.")
    reason: Reason
    interval: IntervalOut | None = Field(description="The interval of the context's maximum, if that is why.")
    repeat: bool = Field(description="The text around its peak was in an earlier example already.")
    max_activation: float | None = Field(description="Largest in magnitude; null where it is silent.")
    peak_position: int | None
    text: str
    token_ids: list[int]
    tokens: list[str]
    activations: SparseActivations
    document: DocumentOut | None


class CosineNeighbour(FeatureName):
    """A feature with a similar decoder direction."""

    cosine: float


class CoactiveNeighbour(FeatureName):
    """A feature that fires together with this one."""

    pearson: float
    n_tokens: int = Field(description="Tokens on which both are non-zero, of those compared.")


class CorpusUsed(Schema):
    """The text a build read."""

    id: str
    digest: str
    context_length: int
    prepend_bos: bool
    n_contexts: int
    n_tokens: int | None = Field(description="Tokens that were counted.")


class ProvenanceOut(Schema):
    """Everything that the numbers depend on."""

    version: int
    published_at: datetime
    code_version: str
    digest: str | None
    hook: str
    hook_out: str | None
    sae_sha256: str | None
    corpus: CorpusUsed
    settings: dict[str, Any]
    build: BuildProvenance
    model: dict[str, Any]


class Dashboard(FeatureName):
    """All that is stored of one feature."""

    alive: bool
    density: float
    n_active_tokens: int
    n_active_contexts: int
    max_activation: float
    min_activation: float = Field(description="Smallest of its non-zero values.")
    moments: Moments | None = Field(description="null when it never fired")
    activation_histogram: HistogramOut
    intervals: list[IntervalCount]
    logit_histogram: HistogramOut = Field(description="Of its effects on all tokens of the vocabulary.")
    top_logits: list[TokenEffect]
    bottom_logits: list[TokenEffect]
    peak_tokens: list[TokenOut]
    nearest: list[CosineNeighbour] = Field(description="By decoder cosine, over the whole SAE.")
    coactive: list[CoactiveNeighbour] = Field(description="By correlation, over the whole SAE.")
    examples: list[ExampleOut]
    explanation: ShownExplanation | None = Field(description="The default of its explanations.")
    n_explanations: int
    provenance: ProvenanceOut
    snippet: str | None = Field(
        description="Python that reproduces its top activation; null if it never fired."
    )


class VectorOut(FeatureName):
    """A feature's direction, straight from the SAE's file."""

    which: Literal["decoder", "encoder"]
    hook: str = Field(description="Where the vector lives.")
    dtype: str = Field(description="How the file stores it.", examples=["F16"])
    norm: float
    values: list[float] = Field(description="[d_out] of the decoder's row, [d_in] of the encoder's column.")


class NearestFeature(FeatureSummary):
    """A neighbour by decoder direction with its own numbers."""

    cosine: float


class CoactiveFeature(FeatureSummary):
    """A neighbour by co-activation with its own numbers."""

    pearson: float
    n_tokens: int = Field(description="Tokens on which both are non-zero, of those compared.")


class NeighboursOut(FeatureName):
    """Both kinds of neighbours, over the whole SAE."""

    nearest: list[NearestFeature]
    coactive: list[CoactiveFeature]


class BatchRequest(Request):
    """Many features at once."""

    refs: list[str] = Field(
        min_length=1, max_length=MAX_BATCH, examples=[["smollm2-135m-instruct/15-res-3k/650"]]
    )
    include: Literal["summary", "dashboard"] = Field(
        default="summary", description=f"With `dashboard`, at most {MAX_BATCH_DASHBOARDS} refs."
    )


class BatchItem(Schema):
    """One feature asked for: found, or a problem that says why not."""

    ref: str
    summary: FeatureSummary | None = None
    dashboard: Dashboard | None = None
    problem: dict[str, Any] | None = Field(
        default=None, description="A problem object as a single request would have got it."
    )


class BatchOut(Schema):
    """As many items as refs, in their order."""

    items: list[BatchItem]
