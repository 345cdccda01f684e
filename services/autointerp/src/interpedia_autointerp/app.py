"""The autointerp service put together."""

from __future__ import annotations

from fastapi import FastAPI

from interpedia_autointerp.settings import AutointerpSettings
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.shell import create_shell

DESCRIPTION = (
    "Explains features and scores explanations. Its routes arrive with a later release; until "
    "then this service is healthy and says that it can do nothing yet."
)


def create_app(settings: AutointerpSettings, database_settings: DatabaseSettings) -> FastAPI:
    """Build the service around one database."""
    return create_shell(
        "autointerp", description=DESCRIPTION, settings=settings, database_settings=database_settings
    )
