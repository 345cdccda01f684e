"""Which model makes the vectors."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbeddingSettings(BaseSettings):
    """The bundled MiniLM, unless an endpoint is named."""

    model_config = SettingsConfigDict(
        env_prefix="INTERPEDIA_EMBEDDING__",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="An OpenAI-compatible API, up to and without `/embeddings`; the bundled model if absent.",
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=200, description="The endpoint's name of the model."
    )
    api_key: SecretStr | None = Field(default=None, description="The endpoint's key.")
    timeout_s: PositiveFloat = Field(default=20.0, description="Longest silence of the endpoint.")
    batch: PositiveInt = Field(default=64, description="Texts in one request to the endpoint.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> EmbeddingSettings:
        if (self.base_url is None) != (self.model is None):
            raise ValueError("INTERPEDIA_EMBEDDING__BASE_URL and INTERPEDIA_EMBEDDING__MODEL go together")
        return self


def load_embedding_settings() -> EmbeddingSettings:
    """Read the embedding group from the environment."""
    return EmbeddingSettings()
