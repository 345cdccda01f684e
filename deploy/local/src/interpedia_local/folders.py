"""Folders, private files and locks on the one machine."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from interpedia_local.errors import DataFolderInUse, DiskFull, folder_errors

MEGABYTE = 1024 * 1024


def make_folder(folder: Path) -> None:
    """Makes `folder` and its missing parents, enterable by everyone; folders that exist stay as they are.

    Raises:
        DiskFull: no room.
        FolderUnwritable: not allowed, or a file is in the way.
    """
    with folder_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            # A strict umask must not lock the server's user out; only what we just made is touched.
            path.chmod(0o755)
        if not folder.is_dir():
            raise NotADirectoryError(20, "Not a directory", str(folder))


def require_space(folder: Path, megabytes: int) -> None:
    """Refuses early, because a server that finds the disk full can no longer write its own log.

    Raises:
        DiskFull: fewer than `megabytes` MB are free for an unprivileged user.
    """
    free = free_megabytes(folder)
    if free < megabytes:
        raise DiskFull(
            f"The disk that holds {folder} is full: {free} MB are free and at least {megabytes} MB are"
            " needed; free some space, or choose another data folder."
        )


def free_megabytes(folder: Path) -> int:
    """What the disk under `folder` has left for an unprivileged user."""
    with folder_errors(folder):
        disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize // MEGABYTE


def write_private(path: Path, text: str) -> None:
    """Replaces `path` in one step by a file that only its owner can read (mode 0600)."""
    with folder_errors(path.parent):
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


class FolderLock:
    """An exclusive lock on a folder, held by the kernel: it ends with its holder, however that dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock at once or not at all.

        Raises:
            DataFolderInUse: somebody else holds it; the sentence names the process when it is known.
        """
        with folder_errors(self._path.parent):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            by = f" by process {holder}" if holder else ""
            raise DataFolderInUse(
                f"The data folder {self._path.parent} is in use{by}: stop that run first, or choose"
                " another folder."
            ) from error
        with folder_errors(self._path.parent):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def hand_over(self) -> int:
        """Gives the descriptor away: whoever inherits it holds the lock, the caller closes its own copy."""
        if self._descriptor is None:
            raise RuntimeError("hand_over() before acquire()")
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def release(self) -> None:
        """Lets go; harmless when the lock is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
