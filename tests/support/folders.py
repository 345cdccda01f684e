"""Folders that an unprivileged database server can enter, also when the tests run as root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A passing folder that everyone can enter; pytest's own is closed to all but its owner."""
    folder = Path(tempfile.mkdtemp(prefix="interpedia-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
