"""Live: hosts that serve a model, and steering runs that somebody shared.

Must not break the previous release's code: add first, backfill, remove in a later release.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inference_host",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("capabilities", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("queue_depth", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inference_host")),
    )
    op.create_index(op.f("ix_inference_host_model_id"), "inference_host", ["model_id"], unique=False)
    op.create_table(
        "steering_run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_steering_run_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["model_id"], ["language_model.id"], name=op.f("fk_steering_run_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_steering_run")),
    )
    op.create_index(
        op.f("ix_steering_run_account_id_created_at"),
        "steering_run",
        ["account_id", "created_at"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_table("steering_run")
    op.drop_table("inference_host")
