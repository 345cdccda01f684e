"""What can go wrong on one machine; every message is one sentence that a person can act on.

LocalError
├── DiskFull            the disk under the data folder has no room
├── FolderUnwritable    the data folder cannot be made or written
├── FolderUnreachable   the unprivileged user of the database server cannot enter a folder it needs
├── DataFolderInUse     another launcher or server already works in this folder
├── PortInUse           somebody else listens on a port we need
├── DatabaseFailed      the database server does not start, or answers what it should not
├── InstallationBroken  something that pip should have installed is not there
├── ServiceFailed       a service did not come up, or died too often
└── DemoFailed          the demo could not be published
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class LocalError(Exception):
    """Base of all errors that the launcher shows as one sentence."""


class DiskFull(LocalError):
    """The disk under the data folder has no room."""


class FolderUnwritable(LocalError):
    """The data folder cannot be made or written."""


class FolderUnreachable(LocalError):
    """The unprivileged user of the database server cannot enter a folder it needs."""


class DataFolderInUse(LocalError):
    """Another launcher or server already works in this folder."""


class PortInUse(LocalError):
    """Somebody else listens on a port we need."""


class DatabaseFailed(LocalError):
    """The database server does not start, or answers what it should not."""


class InstallationBroken(LocalError):
    """Something that pip should have installed is not there."""


class ServiceFailed(LocalError):
    """A service did not come up, or died too often."""


class DemoFailed(LocalError):
    """The demo could not be published."""


@contextmanager
def folder_errors(folder: Path) -> Generator[None]:
    """Turns the operating system's refusals about `folder` into our sentences.

    Raises:
        DiskFull: no space, or over quota.
        FolderUnwritable: no permission, a read-only disk, or a file where a folder should be.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(disk_full_sentence(folder)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise FolderUnwritable(
                f"The data folder {folder} cannot be written: {error.strerror}."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise FolderUnwritable(
                f"The data folder {folder} cannot be made: a file is in its way."
            ) from error
        raise


def disk_full_sentence(folder: Path) -> str:
    """What to say when the disk under `folder` is full."""
    return f"The disk that holds {folder} is full: free some space, or choose another data folder."
