"""Accounts and keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, SmallInteger, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import Base, BigId, CreatedAt


class Account(CreatedAt, BigId, Base):
    """Somebody who owns SAEs, lists and keys."""

    __tablename__ = "account"

    name: Mapped[str] = mapped_column(Text, unique=True)


class APIKey(CreatedAt, BigId, Base):
    """A key: a public prefix to find it by and the SHA-256 of the whole. The key itself is never stored."""

    __tablename__ = "api_key"

    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    prefix: Mapped[str] = mapped_column(Text, unique=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(CreatedAt, BigId, Base):
    """The answer to a POST, kept so that the same POST again has the same answer and no second effect."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("account_id", "route", "key"), Index(None, "created_at"))

    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    route: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    body_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int | None] = mapped_column(SmallInteger)
    response: Mapped[bytes | None] = mapped_column(LargeBinary)
