"""The rules of uploads."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from interpedia_ingest.folders import DataFolder, disk_errors
from interpedia_ingest.refusals import refuse
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads import repository
from interpedia_ingest.uploads.files import UploadFolder
from interpedia_ingest.uploads.parts import Part, check_files, plan_parts
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.publishing import UploadedFile, UploadOut, UploadPart, UploadRequest
from interpedia_shared.db.models import Upload, UploadFile
from interpedia_shared.db.session import Database, ReadSession, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.problems import BadUpload, Conflict, UploadNotFound

log = structlog.get_logger(__name__)
_BUFFER = 1 << 20
_SHOWN_PARTS = 20


@dataclass(frozen=True, slots=True)
class _Found:
    upload: Upload
    files: Sequence[UploadFile]
    parts: list[Part]


class UploadService:
    """Takes in files part by part and keeps them by their content."""

    def __init__(self, database: Database, folder: DataFolder, settings: IngestSettings) -> None:
        self._database = database
        self._folder = folder
        self._settings = settings

    async def create(self, caller: Caller, request: UploadRequest, once: Once) -> Answer:
        """Open an upload.

        Raises:
            BadUpload, TooLarge: the files are not what is taken.
            Conflict: the account has too many open uploads.
            Unavailable: the disk has no room for them.
        """
        kept = await once.replay(self._database)
        if kept is not None:
            return kept
        check_files(request.kind, request.files, max_bytes=self._settings.max_upload_bytes)
        # Twice: while an upload is completed, its parts and the file made of them exist side by side.
        self._folder.require_room(2 * sum(file.size for file in request.files))
        async with self._database.write() as session:
            kept = await once.claim(session)
            if kept is not None:
                return kept
            await self._check_open(session, caller)
            upload = await repository.create(session, caller.account_id, request, self._settings.part_bytes)
            found = await self._find(session, caller, upload.id)
            return await once.keep(session, Answer.of(201, _shown(found)))

    async def read(self, caller: Caller, upload_id: uuid.UUID) -> UploadOut:
        """Show an upload to its owner.

        Raises:
            UploadNotFound: there is none, or it is somebody else's.
        """
        async with self._database.read() as session:
            return _shown(await self._find(session, caller, upload_id))

    async def receive(
        self, caller: Caller, upload_id: uuid.UUID, n: int, *, body: AsyncIterator[bytes], sha256: str | None
    ) -> None:
        """Take in one part; it counts once it is whole.

        Raises:
            UploadNotFound: no such upload of this caller, or no such part.
            Conflict: the upload is complete already.
            BadUpload: the part has another size or SHA-256 than was said; what was there before stays.
            Unavailable: the disk is full.
        """
        async with self._database.read() as session:
            found = await self._find(session, caller, upload_id)
        part = next((part for part in found.parts if part.n == n), None)
        if part is None:
            raise UploadNotFound(
                f"Upload {upload_id} has parts 1..{len(found.parts)}, not {n}.",
                extensions={"upload": str(upload_id), "first": 1, "last": len(found.parts)},
            )
        _must_be_open(found.upload.state, upload_id)
        folder = UploadFolder(self._folder.uploads, upload_id)
        with disk_errors():
            partial = folder.new_partial(n)
            try:
                await _write(partial, body, part, sha256)
                await asyncio.to_thread(partial.replace, folder.part(n))
            finally:
                partial.unlink(missing_ok=True)
        async with self._database.write() as session:
            state = await repository.mark_received(session, upload_id, n)
        if state is None:
            folder.remove()
            raise _not_found(upload_id)
        _must_be_open(state, upload_id)

    async def complete(self, caller: Caller, upload_id: uuid.UUID) -> UploadOut:
        """Verify every file and keep it; done already is done.

        Raises:
            UploadNotFound: there is none, or it is somebody else's.
            Conflict: parts are missing; the answer lists them.
            BadUpload: a file has another SHA-256 than was declared; its parts have to be sent again.
            Unavailable: the disk is full.
        """
        async with self._database.read() as session:
            found = await self._find(session, caller, upload_id)
        if found.upload.state == "complete":
            return _shown(found)
        missing = [part.n for part in found.parts if part.n not in set(found.upload.received)]
        if missing:
            raise Conflict(
                f"Upload {upload_id} lacks {len(missing)} of {len(found.parts)} parts.",
                extensions={"missing": missing[:_SHOWN_PARTS], "n_missing": len(missing)},
            )
        uris = {file.name: await self._keep_file(found, file) for file in found.files}
        async with self._database.write() as session:
            await repository.mark_complete(session, upload_id, uris)
            complete = await self._find(session, caller, upload_id)
            shown = _shown(complete)
        await asyncio.to_thread(UploadFolder(self._folder.uploads, upload_id).remove)
        return shown

    async def sweep(self) -> None:
        """Drop uploads that nobody completed, and folders that belong to none."""
        lifetime = timedelta(seconds=self._settings.upload_lifetime_s)
        async with self._database.write() as session:
            dropped = await repository.drop_stale(session, lifetime)
        # Folders first: one that appears after the ids were read belongs to an upload opened since.
        folders = await asyncio.to_thread(_folders, self._folder.uploads)
        async with self._database.read() as session:
            known = {str(upload_id) for upload_id in await repository.open_ids(session)}
        orphans = [path for path in folders if path.name not in known]
        for path in orphans:
            await asyncio.to_thread(UploadFolder(path.parent, uuid.UUID(path.name)).remove)
        if dropped or orphans:
            log.info("uploads_swept", dropped=len(dropped), folders=len(orphans))

    async def _keep_file(self, found: _Found, file: UploadFile) -> str:
        numbers = [part.n for part in found.parts if part.file == file.ordinal]
        folder = UploadFolder(self._folder.uploads, found.upload.id)
        blobs = self._folder.blobs
        with disk_errors():
            try:
                path, sha256, size = await asyncio.to_thread(folder.join, numbers)
                if (sha256, size) == (file.sha256, file.size):
                    return await asyncio.to_thread(blobs.adopt, path, sha256)
                await asyncio.to_thread(path.unlink, missing_ok=True)
            except FileNotFoundError:
                # A completion that was cut off, or that runs beside this one, has moved it already.
                if await asyncio.to_thread(blobs.path(f"blob:{file.sha256}").is_file):
                    return f"blob:{file.sha256}"
                await self._unmark(found.upload.id, numbers)
                raise Conflict(
                    f"Parts of {file.name} are gone. Send them again.",
                    extensions={"missing": numbers[:_SHOWN_PARTS], "n_missing": len(numbers)},
                ) from None
        await self._unmark(found.upload.id, numbers)
        raise refuse(
            BadUpload,
            f"#/files/{file.ordinal}/sha256",
            f"{file.name} was declared as {file.sha256}, what arrived is {sha256}. Send its parts again.",
            parts=numbers[:_SHOWN_PARTS],
        )

    async def _unmark(self, upload_id: uuid.UUID, numbers: Sequence[int]) -> None:
        async with self._database.write() as session:
            await repository.unmark(session, upload_id, numbers)

    async def _check_open(self, session: WriteSession, caller: Caller) -> None:
        limit = self._settings.max_open_uploads
        if await repository.count_open(session, caller.account_id) >= limit:
            raise Conflict(
                f"This account has {limit} uploads open, as many as are allowed. Complete one first.",
                extensions={"limit": limit},
            )

    async def _find(
        self, session: ReadSession | WriteSession, caller: Caller, upload_id: uuid.UUID
    ) -> _Found:
        row = await repository.find(session, caller.account_id, upload_id)
        if row is None:
            raise _not_found(upload_id)
        upload, files = row
        return _Found(upload, files, plan_parts([file.size for file in files], upload.part_bytes))


async def _write(path: Path, body: AsyncIterator[bytes], part: Part, sha256: str | None) -> None:
    """Stream a body into a file, never holding more than a megabyte of it."""
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray()
    with path.open("wb") as file:
        async for chunk in body:
            size += len(chunk)
            if size > part.size:
                raise _wrong_size(part, f"more than {part.size}")
            digest.update(chunk)
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await asyncio.to_thread(file.write, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(file.write, bytes(buffer))
    if size != part.size:
        raise _wrong_size(part, str(size))
    if sha256 is not None and sha256.lower() != digest.hexdigest():
        raise refuse(
            BadUpload,
            "x-content-sha256",
            f"says {sha256[:64]}, part {part.n} as it arrived has {digest.hexdigest()}",
        )


def _wrong_size(part: Part, found: str) -> BadUpload:
    return refuse(BadUpload, "body", f"part {part.n} has {part.size} bytes, {found} arrived")


def _must_be_open(state: str, upload_id: uuid.UUID) -> None:
    if state != "open":
        raise Conflict(f"Upload {upload_id} is {state} and takes no more parts.", extensions={"state": state})


def _not_found(upload_id: uuid.UUID) -> UploadNotFound:
    return UploadNotFound(f"You have no upload {upload_id}.", extensions={"upload": str(upload_id)})


def _shown(found: _Found) -> UploadOut:
    received = set(found.upload.received)
    is_complete = found.upload.state == "complete"
    return UploadOut.model_validate(
        {
            "id": found.upload.id,
            "kind": found.upload.kind,
            "state": found.upload.state,
            "part_bytes": found.upload.part_bytes,
            "files": [
                UploadedFile(name=file.name, size=file.size, sha256=file.sha256) for file in found.files
            ],
            "parts": [
                UploadPart(
                    n=part.n,
                    file=found.files[part.file].name,
                    offset=part.offset,
                    size=part.size,
                    received=is_complete or part.n in received,
                )
                for part in found.parts
            ],
        }
    )


def _folders(uploads: Path) -> list[Path]:
    folders: list[Path] = []
    for path in uploads.iterdir():
        try:
            uuid.UUID(path.name)
        except ValueError:
            continue
        folders.append(path)
    return folders
