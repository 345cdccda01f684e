"""Meaning: runs, scores, verdicts, calls to language models, and what searches need.

Must not break the previous release's code: add first, backfill, remove in a later release.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _calls() -> None:
    op.create_table(
        "llm_call",
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column(
            "leased_until", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("output_mode", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens_cached", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens_out", sa.Integer(), server_default="0", nullable=False),
        sa.Column("is_estimated", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("cost_micro", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_call")),
        sa.UniqueConstraint("request_hash", name=op.f("uq_llm_call_request_hash")),
    )
    op.create_index(op.f("ix_llm_call_created_at"), "llm_call", ["created_at"], unique=False)
    op.create_table(
        "llm_endpoint",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("capabilities", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("probed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_llm_endpoint")),
    )
    op.create_table(
        "budget",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("cap_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cap_micro", sa.BigInteger(), nullable=True),
        sa.Column("reserved_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_micro", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_micro", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_calls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_cached", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_budget_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_budget")),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("method_version", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("provenance", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_run_account_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_run_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_account_id_created_at"), "run", ["account_id", "created_at"], unique=False)
    op.create_index(op.f("ix_run_job_id"), "run", ["job_id"], unique=False)
    op.create_table(
        "run_call",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("is_paid", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["llm_call.id"], name=op.f("fk_run_call_call_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_call_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "call_id", name=op.f("pk_run_call")),
    )
    op.create_table(
        "explanation_task",
        sa.Column("sae_version_id", sa.BigInteger(), nullable=False),
        sa.Column("feature_idx", sa.Integer(), nullable=False),
        sa.Column("split_hash", sa.Text(), nullable=False),
        sa.Column("material", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sae_version_id"],
            ["sae_version.id"],
            name=op.f("fk_explanation_task_sae_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_explanation_task")),
        sa.UniqueConstraint("split_hash", name=op.f("uq_explanation_task_split_hash")),
    )
    op.create_index(
        op.f("ix_explanation_task_sae_version_id_feature_idx"),
        "explanation_task",
        ["sae_version_id", "feature_idx"],
        unique=False,
    )


def _redteam() -> None:
    op.create_table(
        "redteam_text",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("sae_id", sa.BigInteger(), nullable=False),
        sa.Column("feature_idx", sa.Integer(), nullable=False),
        sa.Column("explanation_id", sa.BigInteger(), nullable=True),
        sa.Column("round", sa.SmallInteger(), nullable=False),
        sa.Column("intent", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("pair", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tokens", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("activations", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("max_activation", sa.Double(), nullable=True),
        sa.Column("quantile", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["explanation_id"],
            ["explanation.id"],
            name=op.f("fk_redteam_text_explanation_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_redteam_text_run_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["sae_id"], ["sae.id"], name=op.f("fk_redteam_text_sae_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_redteam_text")),
    )
    op.create_index(op.f("ix_redteam_text_run_id"), "redteam_text", ["run_id"], unique=False)
    op.create_index(
        op.f("ix_redteam_text_sae_id_feature_idx"), "redteam_text", ["sae_id", "feature_idx"], unique=False
    )


def _scores() -> None:
    op.create_table(
        "score",
        sa.Column("explanation_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("scorer", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("stratum", sa.Text(), nullable=False),
        sa.Column("is_headline", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("ci_low", sa.Double(), nullable=True),
        sa.Column("ci_high", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("n_failed", sa.Integer(), nullable=False),
        sa.Column("n_abstained", sa.Integer(), nullable=False),
        sa.Column("baseline", sa.Double(), nullable=True),
        sa.Column("judge", sa.Text(), nullable=True),
        sa.Column("split_hash", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["explanation_id"], ["explanation.id"], name=op.f("fk_score_explanation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_score_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score")),
    )
    op.create_index(
        op.f("ix_score_explanation_id_scorer"), "score", ["explanation_id", "scorer"], unique=False
    )
    op.create_index(op.f("ix_score_run_id"), "score", ["run_id"], unique=False)
    op.create_table(
        "verdict",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("explanation_id", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("scorer", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("stratum", sa.Text(), nullable=False),
        sa.Column("truth", sa.Boolean(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Boolean(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["explanation_id"], ["explanation.id"], name=op.f("fk_verdict_explanation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_verdict_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdict")),
    )
    op.create_index(
        op.f("ix_verdict_explanation_id_run_id"), "verdict", ["explanation_id", "run_id"], unique=False
    )


def _explanations() -> None:
    op.add_column("explanation", sa.Column("run_id", sa.UUID(), nullable=True))
    op.add_column(
        "explanation",
        sa.Column(
            "hypothesis",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.add_column(
        "explanation", sa.Column("is_default", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column("explanation", sa.Column("best_score", sa.Double(), nullable=True))
    op.add_column("explanation", sa.Column("density", sa.Double(), nullable=True))
    op.add_column("explanation", sa.Column("release_id", sa.BigInteger(), nullable=True))
    op.add_column("explanation", sa.Column("embedding", HALFVEC(384), nullable=True))
    op.add_column("explanation", sa.Column("embedding_model", sa.Text(), nullable=True))
    op.add_column(
        "explanation",
        sa.Column(
            "words",
            postgresql.TSVECTOR(),
            sa.Computed("to_tsvector('english', text)", persisted=True),
            nullable=False,
        ),
    )
    op.create_index(
        "ix_explanation_embedding",
        "explanation",
        ["embedding"],
        unique=False,
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "halfvec_cosine_ops"},
        postgresql_with={"m": 16, "ef_construction": 128},
    )
    for column in ("run_id", "account_id", "best_score", "density"):
        op.create_index(op.f(f"ix_explanation_{column}"), "explanation", [column], unique=False)
    op.create_index("ix_explanation_words", "explanation", ["words"], unique=False, postgresql_using="gin")
    op.create_index(
        "uq_explanation_default",
        "explanation",
        ["sae_id", "feature_idx"],
        unique=True,
        postgresql_where=sa.text("is_default"),
    )
    op.create_foreign_key(
        op.f("fk_explanation_run_id"), "explanation", "run", ["run_id"], ["id"], ondelete="SET NULL"
    )
    op.create_foreign_key(
        op.f("fk_explanation_release_id"),
        "explanation",
        "release",
        ["release_id"],
        ["id"],
        ondelete="SET NULL",
    )


def _features() -> None:
    op.create_index(
        "ix_feature_peak_token_ids",
        "feature",
        ["peak_token_ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )


def upgrade() -> None:
    for step in (_calls, _runs, _redteam, _scores, _explanations, _features):
        step()


def downgrade() -> None:
    raise RuntimeError("scores and calls that were paid for would be lost: restore a backup instead")
