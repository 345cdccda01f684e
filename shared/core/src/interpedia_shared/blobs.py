"""Content-addressed files: `blob:<sha256>` names bytes, wherever the store keeps them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_URI = re.compile(r"^blob:([0-9a-f]{64})$")
_CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class BlobStore:
    """Blobs in a folder (a disk, or a volume that all pods mount)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, uri: str) -> Path:
        """Where a blob is.

        Raises:
            ValueError: not a blob URI.
        """
        match = _URI.match(uri)
        if match is None:
            raise ValueError(f"'{uri}' is not a blob URI")
        sha256 = match.group(1)
        return self.root / sha256[:2] / sha256

    def adopt(self, file: Path, sha256: str) -> str:
        """Move a finished, verified file in; the same bytes twice are one blob.

        A blob that is there stays: what readers rely on is never replaced, not even by a file that claims to
        be the same.
        """
        uri = f"blob:{sha256}"
        target = self.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            file.unlink(missing_ok=True)
        else:
            os.replace(file, target)
        return uri
