"""Settings of the autointerp API and its workers."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from interpedia_shared.settings import ServiceSettings


class AutointerpSettings(ServiceSettings):
    """What every service has, where the live model is, how work is cut. LLM endpoints: llm/settings.py."""

    port: int = Field(default=8002, ge=1, le=65535, description="Port to listen on.")

    gateway_url: str = Field(
        default="http://127.0.0.1:8000",
        description="Where live requests go: the gateway knows which host serves a model.",
    )
    gateway_key: SecretStr | None = Field(
        default=None, description="Key of live requests; without one they are anonymous."
    )
    live_timeout_s: PositiveFloat = Field(default=120.0, description="Longest wait for one live request.")
    live_patience_s: PositiveFloat = Field(
        default=300.0, description="Longest time that a busy or absent host may hold up a task's request."
    )
    live_concurrency: PositiveInt = Field(default=4, description="Live requests at once, of each process.")
    live_batch_tokens: PositiveInt = Field(default=2_048, description="Tokens of one live request, about.")

    features_per_task: PositiveInt = Field(default=32, description="Features of one task of a job.")
    max_features: PositiveInt = Field(default=1_000_000, description="Features of one job.")
    worker_tasks: PositiveInt = Field(default=2, description="Tasks that a worker runs at once.")
    pool_contexts: PositiveInt = Field(
        default=2_000, description="Contexts of the corpus in which near misses are looked for."
    )
    heartbeat_timeout_s: PositiveFloat = Field(
        default=8.0, description="A worker silent for longer is dead: its tasks go to others."
    )


def load_settings() -> AutointerpSettings:
    """Read the settings from the environment."""
    return AutointerpSettings()
