"""Sending files: in parts, each with its hash, continued where it broke off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from interpedia.errors import FileProblem, Invalid, ServerUnreachable, Unavailable, UploadInterrupted
from interpedia.schemas import Part, Upload, UploadKind
from interpedia.transport import Request, Transport


@dataclass(frozen=True)
class Sent:
    """Progress of an upload, in bytes."""

    done: int
    total: int


@dataclass(frozen=True)
class LocalFile:
    """A file to send, as the server hears of it first."""

    path: Path
    size: int
    sha256: str

    @property
    def declaration(self) -> dict[str, str | int]:
        """Name, size and hash."""
        return {"name": self.path.name, "size": self.size, "sha256": self.sha256}


class Uploads:
    """`client.uploads`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, upload_id: str) -> Upload:
        """The state of an upload, part by part."""
        return self._transport.read(Request("GET", _path(upload_id)), Upload)

    def send(
        self,
        files: Sequence[Path | str],
        kind: UploadKind,
        *,
        resume: str | None = None,
        progress: Callable[[Sent], None] | None = None,
    ) -> Upload:
        """Sends `files` and has the server check sizes and hashes.

        Args:
            files: what to send; their names must differ.
            kind: what they are.
            resume: the id of an upload that broke off; only the parts the server lacks are sent.
            progress: called after every part.

        Returns:
            The upload in state `complete`.

        Raises:
            FileProblem: a file is missing, changes under our hands, or is not of the upload to resume.
            UploadInterrupted: the connection broke, or the server stays busy; `upload_id` resumes it.
            Invalid: the server does not want these files.
        """
        local = _inspect(files)
        upload = self._open(local, kind) if resume is None else self.get(resume)
        if upload.state == "complete":
            return upload
        try:
            self._send_missing(upload, local, progress)
            request = Request("POST", f"{_path(upload.id)}/complete")
            return self._transport.read(request, Upload)
        except (ServerUnreachable, Unavailable) as error:
            raise UploadInterrupted(upload.id, str(error).rstrip(".")) from error

    def _open(self, files: dict[str, LocalFile], kind: UploadKind) -> Upload:
        body = {"kind": kind, "files": [file.declaration for file in files.values()]}
        return self._transport.read(Request("POST", "/v1/uploads", json=body), Upload)

    def _send_missing(
        self, upload: Upload, files: dict[str, LocalFile], progress: Callable[[Sent], None] | None
    ) -> None:
        total = sum(part.size for part in upload.parts)
        done = sum(part.size for part in upload.parts if part.received)
        for part in upload.parts:
            if part.file not in files:
                raise FileProblem(
                    f"The upload {upload.id} expects {part.file}, which is not among the files given."
                )
            if not part.received:
                self._send_part(upload.id, part, files[part.file])
                done += part.size
            if progress is not None:
                progress(Sent(done, total))

    def _send_part(self, upload_id: str, part: Part, file: LocalFile) -> None:
        with file.path.open("rb") as stream:
            stream.seek(part.offset)
            content = stream.read(part.size)
        if len(content) != part.size:
            raise FileProblem(f"{file.path} holds fewer bytes than when the upload began.")
        digest = hashlib.sha256(content).hexdigest()
        headers = {"content-type": "application/octet-stream", "x-content-sha256": digest}
        request = Request("PUT", f"{_path(upload_id)}/parts/{part.n}", content=content, headers=headers)
        try:
            self._transport.send(request)
        except Invalid:
            # A part may be damaged on its way, which its hash reveals; one that is refused twice is wrong.
            self._transport.send(request)


def _path(upload_id: str) -> str:
    return f"/v1/uploads/{quote(upload_id, safe='')}"


def _inspect(files: Sequence[Path | str]) -> dict[str, LocalFile]:
    found: dict[str, LocalFile] = {}
    for path in map(Path, files):
        if path.name in found:
            raise FileProblem(f"Two of the files are called {path.name}.")
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found[path.name] = LocalFile(path, path.stat().st_size, digest)
        except OSError as error:
            raise FileProblem(f"The file {path} cannot be read: {error.strerror}.") from error
    if not found:
        raise FileProblem("There is no file to send.")
    return found
