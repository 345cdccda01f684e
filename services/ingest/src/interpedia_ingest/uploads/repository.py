"""SQL of uploads."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update

from interpedia_shared.contracts.publishing import UploadRequest
from interpedia_shared.db.models import Account, Upload, UploadFile
from interpedia_shared.db.session import ReadSession, WriteSession


async def create(session: WriteSession, account_id: int, request: UploadRequest, part_bytes: int) -> Upload:
    """Insert an open upload and its files."""
    upload = Upload(
        account_id=account_id, kind=request.kind, state="open", part_bytes=part_bytes, received=[]
    )
    session.add(upload)
    await session.flush()
    session.add_all(
        UploadFile(upload_id=upload.id, ordinal=n, name=file.name, size=file.size, sha256=file.sha256)
        for n, file in enumerate(request.files)
    )
    return upload


async def count_open(session: WriteSession, account_id: int) -> int:
    """Unfinished uploads of an account, whose row is locked so that two requests cannot both be the last."""
    await session.execute(select(Account.id).where(Account.id == account_id).with_for_update())
    query = select(func.count()).where(Upload.account_id == account_id, Upload.state == "open")
    return (await session.execute(query)).scalar_one()


async def find(
    session: ReadSession | WriteSession, account_id: int, upload_id: uuid.UUID
) -> tuple[Upload, Sequence[UploadFile]] | None:
    """An account's upload with its files in order."""
    upload = await session.scalar(
        select(Upload).where(Upload.id == upload_id, Upload.account_id == account_id)
    )
    if upload is None:
        return None
    files = await session.scalars(
        select(UploadFile).where(UploadFile.upload_id == upload_id).order_by(UploadFile.ordinal)
    )
    return upload, files.all()


async def mark_received(session: WriteSession, upload_id: uuid.UUID, n: int) -> str | None:
    """Note that a part is there; the upload's state, or None when it is gone."""
    upload = await session.scalar(select(Upload).where(Upload.id == upload_id).with_for_update())
    if upload is None:
        return None
    if upload.state == "open" and n not in upload.received:
        upload.received = sorted([*upload.received, n])
    return upload.state


async def unmark(session: WriteSession, upload_id: uuid.UUID, parts: Iterable[int]) -> None:
    """Forget parts that have to be sent again."""
    upload = await session.scalar(select(Upload).where(Upload.id == upload_id).with_for_update())
    if upload is not None:
        gone = set(parts)
        upload.received = [n for n in upload.received if n not in gone]


async def mark_complete(session: WriteSession, upload_id: uuid.UUID, uris: Mapping[str, str]) -> None:
    """Point the files into the blob store and close the upload."""
    for name, uri in uris.items():
        await session.execute(
            update(UploadFile)
            .where(UploadFile.upload_id == upload_id, UploadFile.name == name)
            .values(uri=uri)
        )
    await session.execute(update(Upload).where(Upload.id == upload_id).values(state="complete"))


async def drop_stale(session: WriteSession, lifetime: timedelta) -> list[uuid.UUID]:
    """Delete open uploads that are older than `lifetime`."""
    ids = await session.scalars(
        delete(Upload)
        .where(Upload.state == "open", Upload.created_at < func.now() - lifetime)
        .returning(Upload.id)
    )
    return list(ids)


async def open_ids(session: ReadSession) -> set[uuid.UUID]:
    """All open uploads."""
    return set(await session.scalars(select(Upload.id).where(Upload.state == "open")))
