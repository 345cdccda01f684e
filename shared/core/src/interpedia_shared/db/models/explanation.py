"""What people and machines say a feature does, and how well that was found to hold."""

from __future__ import annotations

import uuid
from datetime import datetime

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import BigInteger, Computed, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR, UUID
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import JSON, Base, BigId, CreatedAt

EMBEDDING_WIDTH = 384


class Run(CreatedAt, Base):
    """One method at work on some features, with all that is needed to repeat it.

    `kind`: explain, score, redteam, benchmark. `provenance` holds method and prompt versions, the hash of the
    rendered template, the endpoint's name and reported model, seed and code version; never a key.
    """

    __tablename__ = "run"
    __table_args__ = (Index(None, "job_id"), Index(None, "account_id", "created_at"))

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    kind: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    method_version: Mapped[str] = mapped_column(Text)
    params: Mapped[JSON]
    provenance: Mapped[JSON]
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("job.id", ondelete="SET NULL"))


class Explanation(CreatedAt, BigId, Base):
    """A text about one feature. It belongs to the SAE, so it outlives a rebuild of the dashboards.

    `hypothesis` is the structured form (role, trigger, confidence, no_pattern, rule, …). The default of a
    feature is the one that is shown; `best_score` is its headline score. `embedding` is null until a worker
    has made it with `embedding_model`. `release_id` and `density` are copied here because searches filter by
    them.
    """

    __tablename__ = "explanation"
    __table_args__ = (
        Index(None, "sae_id", "feature_idx"),
        Index(None, "run_id"),
        # what searches are narrowed by
        Index(None, "account_id"),
        Index(None, "best_score"),
        Index(None, "density"),
        Index(
            "uq_explanation_default",
            "sae_id",
            "feature_idx",
            unique=True,
            postgresql_where=sql("is_default"),
        ),
        Index("ix_explanation_words", "words", postgresql_using="gin"),
        Index(
            "ix_explanation_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "halfvec_cosine_ops"},
            # with 64, the default, a fortieth of the nearest 20 is missed among 49,152 (docs/search.md)
            postgresql_with={"m": 16, "ef_construction": 128},
        ),
    )

    sae_id: Mapped[int] = mapped_column(ForeignKey("sae.id", ondelete="CASCADE"))
    feature_idx: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("run.id", ondelete="SET NULL"))
    hypothesis: Mapped[JSON] = mapped_column(server_default=sql("'{}'::jsonb"))
    is_default: Mapped[bool] = mapped_column(server_default="false")
    best_score: Mapped[float | None]
    density: Mapped[float | None]
    release_id: Mapped[int | None] = mapped_column(ForeignKey("release.id", ondelete="SET NULL"))
    embedding: Mapped[list[float] | None] = mapped_column(HALFVEC(EMBEDDING_WIDTH), deferred=True)
    embedding_model: Mapped[str | None] = mapped_column(Text)
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('english', text)", persisted=True), deferred=True
    )


class Score(CreatedAt, BigId, Base):
    """How well an explanation predicts its feature, by one scorer; never without n, interval and baseline.

    `metric` is what `value` is (balanced_accuracy, population_precision, …), `stratum` the part of the items
    it is over (`all`, `decile 9`, `near_miss`, …). `is_headline` marks the one number of a scorer.
    """

    __tablename__ = "score"
    __table_args__ = (Index(None, "explanation_id", "scorer"), Index(None, "run_id"))

    explanation_id: Mapped[int] = mapped_column(ForeignKey("explanation.id", ondelete="CASCADE"))
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    scorer: Mapped[str] = mapped_column(Text)
    metric: Mapped[str] = mapped_column(Text)
    stratum: Mapped[str] = mapped_column(Text)
    is_headline: Mapped[bool] = mapped_column(server_default="false")
    status: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None]
    ci_low: Mapped[float | None]
    ci_high: Mapped[float | None]
    n: Mapped[int]
    n_failed: Mapped[int]
    n_abstained: Mapped[int]
    baseline: Mapped[float | None]
    judge: Mapped[str | None] = mapped_column(Text)
    split_hash: Mapped[str] = mapped_column(Text)
    details: Mapped[JSON]


class Verdict(BigId, Base):
    """One judgement of one item by one judge; scores can be computed from these again.

    `state`: ok, abstained, failed. `item` names what was judged, `truth` whether the feature fires on it.
    `subject`: `explanation`, or `shuffled` for the baseline's judgement with another feature's text.
    """

    __tablename__ = "verdict"
    __table_args__ = (Index(None, "explanation_id", "run_id"),)

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    explanation_id: Mapped[int] = mapped_column(ForeignKey("explanation.id", ondelete="CASCADE"))
    subject: Mapped[str] = mapped_column(Text)
    scorer: Mapped[str] = mapped_column(Text)
    item: Mapped[str] = mapped_column(Text)
    stratum: Mapped[str] = mapped_column(Text)
    truth: Mapped[bool | None]
    state: Mapped[str] = mapped_column(Text)
    verdict: Mapped[bool | None]
    probability: Mapped[float | None]


class RedTeamText(CreatedAt, BigId, Base):
    """A text that was to fire the feature, or not, and what the feature did on it."""

    __tablename__ = "redteam_text"
    __table_args__ = (Index(None, "sae_id", "feature_idx"), Index(None, "run_id"))

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    sae_id: Mapped[int] = mapped_column(ForeignKey("sae.id", ondelete="CASCADE"))
    feature_idx: Mapped[int]
    explanation_id: Mapped[int | None] = mapped_column(ForeignKey("explanation.id", ondelete="SET NULL"))
    round: Mapped[int] = mapped_column(SmallInteger)
    intent: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(Text)
    pair: Mapped[int | None]
    text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    tokens: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    activations: Mapped[JSON | None]
    max_activation: Mapped[float | None]
    quantile: Mapped[float | None]


class LLMCall(CreatedAt, BigId, Base):
    """One question to an endpoint and its answer, paid for once: unique by the hash of the request.

    `state`: sent (asked, no answer stored yet), done, failed. The key is never here. Until `leased_until` the
    one who asks is alive, and others wait for the answer.
    """

    __tablename__ = "llm_call"
    __table_args__ = (UniqueConstraint("request_hash"), Index(None, "created_at"))

    request_hash: Mapped[str] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    request: Mapped[JSON]
    response: Mapped[JSON | None]
    state: Mapped[str] = mapped_column(Text)
    error: Mapped[JSON | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    leased_until: Mapped[datetime] = mapped_column(server_default=func.now())
    output_mode: Mapped[str | None] = mapped_column(Text)
    finish_reason: Mapped[str | None] = mapped_column(Text)
    tokens_in: Mapped[int] = mapped_column(server_default="0")
    tokens_cached: Mapped[int] = mapped_column(server_default="0")
    tokens_out: Mapped[int] = mapped_column(server_default="0")
    is_estimated: Mapped[bool] = mapped_column(server_default="false")
    cost_micro: Mapped[int] = mapped_column(BigInteger, server_default="0")
    latency_ms: Mapped[int | None]
    answered_at: Mapped[datetime | None]


class RunCall(Base):
    """Which calls a run used, its own or ones paid for earlier; `is_paid` tells them apart."""

    __tablename__ = "run_call"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("llm_call.id", ondelete="CASCADE"), primary_key=True)
    is_paid: Mapped[bool]


class Budget(CreatedAt, Base):
    """A hard cap of a job: nothing is sent when spent + reserved + what it may cost would be over it."""

    __tablename__ = "budget"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    cap_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cap_micro: Mapped[int | None] = mapped_column(BigInteger)
    reserved_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    reserved_micro: Mapped[int] = mapped_column(BigInteger, server_default="0")
    spent_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    spent_micro: Mapped[int] = mapped_column(BigInteger, server_default="0")
    n_calls: Mapped[int] = mapped_column(server_default="0")
    n_cached: Mapped[int] = mapped_column(server_default="0")


class LLMEndpoint(CreatedAt, Base):
    """What probing an endpoint found out; its address and key are settings."""

    __tablename__ = "llm_endpoint"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    base_url: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    capabilities: Mapped[JSON]
    probed_at: Mapped[datetime | None]


class ExplanationTask(CreatedAt, BigId, Base):
    """The frozen material of one feature: its splits by document, strata and negatives, under one hash."""

    __tablename__ = "explanation_task"
    __table_args__ = (
        UniqueConstraint("split_hash"),
        Index(None, "sae_version_id", "feature_idx"),
    )

    sae_version_id: Mapped[int] = mapped_column(ForeignKey("sae_version.id", ondelete="CASCADE"))
    feature_idx: Mapped[int]
    split_hash: Mapped[str] = mapped_column(Text)
    material: Mapped[JSON]
