"""The parts of an upload on disk, and the files that are made of them. Blocking: call from a thread.

Every part is a file of its own that appears by a rename, so a part that arrives twice, or while the upload is
being completed, never tears anything.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20


class UploadFolder:
    """The folder of one open upload."""

    def __init__(self, uploads: Path, upload_id: uuid.UUID) -> None:
        self.path = uploads / str(upload_id)

    def part(self, n: int) -> Path:
        """Where part `n` is once it is whole."""
        return self.path / f"{n:06d}.part"

    def new_partial(self, n: int) -> Path:
        """A path of its own for one attempt to receive part `n`."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path / f"{n:06d}.{uuid.uuid4().hex}.tmp"

    def join(self, parts: Sequence[int]) -> tuple[Path, str, int]:
        """Put parts together into a file of its own, synced to the disk.

        A lone part is copied too: another request may put other bytes in its place after they were hashed.
        Gives path, SHA-256 and bytes; the file is the caller's to move or remove.

        Raises:
            FileNotFoundError: a part is not there.
        """
        digest = hashlib.sha256()
        path = self.path / f"{parts[0]:06d}.{uuid.uuid4().hex}.joined"
        size = 0
        try:
            with path.open("wb") as target:
                for n in parts:
                    with self.part(n).open("rb") as source:
                        size += _pour(source, target, digest)
                target.flush()
                os.fsync(target.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path, digest.hexdigest(), size

    def remove(self) -> None:
        """Remove the folder with all that is in it; nothing happens when it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)


def _pour(source: BinaryIO, target: BinaryIO, digest: hashlib._Hash) -> int:  # pyright: ignore[reportPrivateUsage]
    size = 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return size
