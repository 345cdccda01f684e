"""Hosts that serve a model live, and steering runs that somebody chose to share."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import JSON, Base, CreatedAt


class InferenceHost(CreatedAt, Base):
    """One running inference process.

    `state`: waiting (its model is not registered yet), loading, ready, failed. It writes `heartbeat_at` by
    the database's clock every few seconds; a host that was not heard of for some of them gets no requests.
    """

    __tablename__ = "inference_host"
    __table_args__ = (Index(None, "model_id"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    model_id: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    capabilities: Mapped[JSON]
    queue_depth: Mapped[int]
    heartbeat_at: Mapped[datetime]


class SteeringRun(CreatedAt, Base):
    """A steering request and its answer, kept because the caller asked for a link."""

    __tablename__ = "steering_run"
    __table_args__ = (Index(None, "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    model_id: Mapped[str] = mapped_column(ForeignKey("language_model.id"))
    request: Mapped[JSON]
    answer: Mapped[JSON]
