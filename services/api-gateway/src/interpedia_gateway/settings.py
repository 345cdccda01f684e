"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from interpedia_shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """What every service has, on this service's own port, and who it talks to."""

    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.")
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="How callers reach this service, for links; taken from the request if absent.",
    )
    ingest_url: str = Field(
        default="http://127.0.0.1:8003",
        pattern=r"^https?://\S+$",
        description="Where publishing goes.",
    )
    ingest_timeout_s: PositiveFloat = Field(default=60.0, description="Longest silence of the ingest API.")
    events_poll_s: PositiveFloat = Field(default=0.5, description="How often a job's events are looked for.")
    events_heartbeat_s: PositiveFloat = Field(default=15.0, description="Longest silence of an event stream.")
    max_event_streams: PositiveInt = Field(default=256, description="Event streams open at once.")
    export_chunk: PositiveInt = Field(default=256, description="Features read at once by an export.")
    max_exports: PositiveInt = Field(default=4, description="Exports running at once.")
    vocabularies_kept: PositiveInt = Field(default=8, description="Tokenizers held in memory.")
