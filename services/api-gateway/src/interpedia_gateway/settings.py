"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

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
    autointerp_url: str = Field(
        default="http://127.0.0.1:8002",
        pattern=r"^https?://\S+$",
        description="Where explaining and scoring go.",
    )
    autointerp_timeout_s: PositiveFloat = Field(
        default=60.0, description="Longest silence of the autointerp API."
    )
    queries_kept: PositiveInt = Field(default=4096, description="Vectors of queries held in memory.")
    hosts_kept_s: NonNegativeFloat = Field(
        default=1.0, description="How long the registry of inference hosts is believed without asking again."
    )
    host_silent_s: PositiveFloat = Field(
        default=10.0, description="A host whose last heartbeat is older gets no requests."
    )
    live_timeout_s: PositiveFloat = Field(
        default=120.0, description="Longest silence of a host, for requests without a deadline of their own."
    )
    max_live_requests: PositiveInt = Field(default=1024, description="Live requests under way at once.")
    max_searches: PositiveInt = Field(
        default=16, description="Prompt searches that one account may have unfinished."
    )
    events_poll_s: PositiveFloat = Field(default=0.5, description="How often a job's events are looked for.")
    events_heartbeat_s: PositiveFloat = Field(default=15.0, description="Longest silence of an event stream.")
    max_event_streams: PositiveInt = Field(default=256, description="Event streams open at once.")
    export_chunk: PositiveInt = Field(default=256, description="Features read at once by an export.")
    max_exports: PositiveInt = Field(default=4, description="Exports running at once.")
    vocabularies_kept: PositiveInt = Field(default=8, description="Tokenizers held in memory.")
