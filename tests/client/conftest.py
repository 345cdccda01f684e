"""A client and the scripted server it talks to."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from interpedia import Client, RetryPolicy
from tests.client.scripted_server import KEY, Script, Stage


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause between two looks at a job that nobody has to sit through."""
    monkeypatch.setattr("interpedia.jobs.POLL_SECONDS", 0.02)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(stage: Stage, script: Script) -> Generator[str]:
    with stage.playing(script) as url:
        yield url


@pytest.fixture
def client(url: str) -> Generator[Client]:
    with Client(url, KEY, retry=RetryPolicy(attempts=3, first_pause=0.01)) as client:
        yield client
