"""Where things lie in the data folder, and whether there is room for more."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager

from interpedia_ingest.settings import IngestSettings
from interpedia_shared.blobs import BlobStore
from interpedia_shared.problems import Unavailable


class DataFolder:
    """One folder that the API and all workers see."""

    def __init__(self, settings: IngestSettings) -> None:
        self.root = settings.data_dir.absolute()
        self.uploads = self.root / "uploads"
        self.spills = self.root / "spills"
        self.models = self.root / "models"
        self.blobs = BlobStore(self.root / "blobs")
        self._reserve = settings.reserve_bytes

    def prepare(self) -> None:
        """Make the folders that are not there yet."""
        for folder in (self.uploads, self.spills, self.models, self.blobs.root):
            folder.mkdir(parents=True, exist_ok=True)

    def free_bytes(self) -> int:
        """Bytes that may still be written, the reserve left out; never negative."""
        return max(0, shutil.disk_usage(self.root).free - self._reserve)

    def require_room(self, wanted: int) -> None:
        """Refuse work that would fill the disk.

        Raises:
            Unavailable: less than `wanted` bytes are free.
        """
        free = self.free_bytes()
        if wanted > free:
            raise disk_full(wanted=wanted, free=free)

    async def check_writable(self) -> None:
        """Health check: a file can be made and removed."""
        probe = self.root / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()

    async def check_free_space(self) -> None:
        """Health check: the reserve is not touched."""
        self.require_room(1)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors() -> Generator[None]:
    """Turn what the disk says into an answer: full, or not writable.

    Raises:
        Unavailable: an `OSError` came out of the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                "The data disk is full. Nothing was kept; send this again later.", retry_after_s=60
            ) from error
        kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise Unavailable(
            f"The data folder cannot be used ({kind}). Nothing was kept.", retry_after_s=60
        ) from error


def disk_full(*, wanted: int, free: int) -> Unavailable:
    """The answer when the data disk is full."""
    return Unavailable(
        f"The data disk has room for {free} more bytes, {wanted} are needed. Nothing was kept.",
        extensions={"free_bytes": free, "needed_bytes": wanted},
        retry_after_s=60,
    )
