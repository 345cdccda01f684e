"""The inference service put together."""

from __future__ import annotations

from fastapi import FastAPI

from interpedia_inference.settings import InferenceSettings
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.shell import create_shell

DESCRIPTION = (
    "One language model and its SAEs in memory. Live routes arrive with the next release; "
    "until then this service is healthy and says that it can do nothing yet."
)


def create_app(settings: InferenceSettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database."""
    return create_shell(
        "inference", description=DESCRIPTION, settings=settings, database_settings=database_settings
    )
