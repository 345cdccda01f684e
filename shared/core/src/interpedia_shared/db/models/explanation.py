"""What people and machines say a feature does."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import Base, BigId, CreatedAt


class Explanation(CreatedAt, BigId, Base):
    """A text about one feature. It belongs to the SAE, so it outlives a rebuild of the dashboards."""

    __tablename__ = "explanation"
    __table_args__ = (Index(None, "sae_id", "feature_idx"),)

    sae_id: Mapped[int] = mapped_column(ForeignKey("sae.id", ondelete="CASCADE"))
    feature_idx: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
