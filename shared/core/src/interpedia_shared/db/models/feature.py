"""One row per feature: typed columns for what people filter and sort by, blobs for the rest."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, SmallInteger
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import Base

FEATURE_PARTITIONS = 64


class Feature(Base):
    """A feature of one SAE version; `interpedia_shared.dashboards` writes and reads its blobs."""

    __tablename__ = "feature"
    __table_args__ = (
        Index(None, "sae_version_id", "density", "idx"),
        Index(None, "sae_version_id", "max_activation", "idx"),
        # Kilobytes that wait to be merged into it. Every lookup reads them, and their pages stay with the
        # index: at Postgres' default of 4 MB they are half of it.
        Index(
            "ix_feature_top_logit_ids",
            "top_logit_ids",
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 256},
        ),
        Index(
            "ix_feature_peak_token_ids",
            "peak_token_ids",
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 256},
        ),
        {"postgresql_partition_by": "HASH (sae_version_id)"},
    )

    sae_version_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    idx: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    density: Mapped[float]
    n_active_tokens: Mapped[int] = mapped_column(BigInteger)
    max_activation: Mapped[float]
    mean_activation: Mapped[float]
    peak_context: Mapped[int | None]
    peak_position: Mapped[int | None] = mapped_column(SmallInteger)
    top_logit_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    peak_token_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    stats: Mapped[bytes] = mapped_column(LargeBinary)
    examples: Mapped[bytes] = mapped_column(LargeBinary)
