"""Folders that an unprivileged database server can enter, also when the tests run as root."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def passing_folder() -> Generator[Path]:
    """A folder that everyone can enter; pytest's own are closed to all but their owner."""
    folder = Path(tempfile.mkdtemp(prefix="interpedia-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A passing folder of this test's own."""
    with passing_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def one_at_a_time(lock: Path) -> Generator[None]:
    """Nobody else holds this lock meanwhile, in whichever process; a death lets go of it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
