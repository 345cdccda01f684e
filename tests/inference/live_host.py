"""A host in this process, behind a real socket, with a thread and an event loop of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from interpedia_inference.app import create_app
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.visits.reception import Reception
from interpedia_shared.settings import DatabaseSettings
from tests.support.serving import serving

PATIENCE_S = 60.0


@dataclass(frozen=True)
class LiveHost:
    """One that runs."""

    url: str
    app: FastAPI

    @property
    def reception(self) -> Reception:
        """The way to its parts. They belong to its event loop: only look."""
        return self.app.state.reception

    def capabilities(self) -> dict[str, Any]:
        """What it says of itself."""
        return httpx.get(f"{self.url}/v1/capabilities", timeout=300).json()

    def wait_until(self, state: str) -> dict[str, Any]:
        """Wait until it says that it is in `state`."""
        return self.wait_for(lambda now: now["state"] == state)

    def wait_for(self, condition: Any) -> dict[str, Any]:
        """Wait until what it says of itself meets a condition."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(now := self.capabilities()):
            if time.monotonic() > deadline:
                raise AssertionError(f"the host never got there: {now}")
            time.sleep(0.02)
        return now

    @contextmanager
    def held(self) -> Iterator[None]:
        """The compute thread does nothing until the block ends: what is asked for meanwhile waits."""
        thread = self.reception.compute.running
        begun, released = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            released.wait(PATIENCE_S)

        thread.submit(hold)
        assert begun.wait(PATIENCE_S)
        try:
            yield
        finally:
            released.set()


@contextmanager
def live_host(settings: InferenceSettings, database_settings: DatabaseSettings) -> Iterator[LiveHost]:
    """Run a host; whether its model is ready is for the caller to wait for."""
    app = create_app(settings, database_settings)
    with serving(app) as url:
        yield LiveHost(url, app)
