"""Settings of the autointerp service."""

from __future__ import annotations

from pydantic import Field

from interpedia_shared.settings import ServiceSettings


class AutointerpSettings(ServiceSettings):
    """What every service has, on this service's own port."""

    port: int = Field(default=8002, ge=1, le=65535, description="Port to listen on.")
