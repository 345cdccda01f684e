"""Files on their way in."""

from __future__ import annotations

import uuid

from sqlalchemy import BigInteger, ForeignKey, Text
from sqlalchemy.dialects.postgresql import ARRAY, INTEGER, UUID
from sqlalchemy.orm import Mapped, mapped_column

from interpedia_shared.db.base import Base, CreatedAt


class Upload(CreatedAt, Base):
    """A set of files sent in parts; `complete` once every file has its declared size and SHA-256."""

    __tablename__ = "upload"

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    part_bytes: Mapped[int]
    received: Mapped[list[int]] = mapped_column(ARRAY(INTEGER), server_default="{}")


class UploadFile(Base):
    """One file of an upload; `uri` points into the blob store once it is complete."""

    __tablename__ = "upload_file"

    upload_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    ordinal: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    uri: Mapped[str | None] = mapped_column(Text)
