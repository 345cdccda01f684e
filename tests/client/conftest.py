"""A client and the scripted server it talks to."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from interpedia import Client, RetryPolicy
from tests.client.scripted_server import KEY, Script, serving


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Generator[str]:
    with serving(script) as url:
        yield url


@pytest.fixture
def client(url: str) -> Generator[Client]:
    with Client(url, KEY, retry=RetryPolicy(attempts=3, first_pause=0.01)) as client:
        yield client
