"""Which LLM endpoints there are, read from `INTERPEDIA_LLM__*` and `INTERPEDIA_LLM_ENDPOINTS`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from interpedia_shared.ids import Slug

DEFAULT_ENDPOINT = "default"


class EndpointSettings(BaseModel):
    """One OpenAI-compatible endpoint with one model.

    Prices are in units of money per million tokens; without them only budgets in tokens can be kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str = Field(description="Up to and with /v1, as OpenAI's clients want it.")
    model: Annotated[str, Field(min_length=1, max_length=256)]
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token, and nowhere else.")
    price_in: NonNegativeFloat | None = Field(default=None, description="Per million prompt tokens.")
    price_cached: NonNegativeFloat | None = Field(
        default=None, description="Per million prompt tokens from the endpoint's cache; default: price_in."
    )
    price_out: NonNegativeFloat | None = Field(default=None, description="Per million generated tokens.")
    concurrency: PositiveInt = Field(default=64, description="Most calls in flight, of each process.")
    requests_per_minute: PositiveInt | None = Field(default=None, description="Of each process.")
    tokens_per_minute: PositiveInt | None = Field(default=None, description="Of each process.")
    timeout_s: PositiveFloat = Field(default=120.0, description="Longest wait for one answer.")
    max_attempts: PositiveInt = Field(default=5, description="Of one call, where the endpoint fails.")
    patience_s: PositiveFloat = Field(
        default=600.0, description="Longest time that rate limits may hold up one call before its job pauses."
    )
    backoff_s: PositiveFloat = Field(default=0.5, description="First wait after a failure; then it doubles.")
    probe_max_age_s: PositiveFloat = Field(
        default=86_400.0, description="What was found out about the endpoint is found out again after this."
    )

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        """Take http(s) URLs that hold no secret: the URL is stored and shown, the key is not."""
        parts = urlsplit(value.strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("base_url is not an http(s) URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must hold no user, password, query or fragment; use api_key")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _prices_together(self) -> EndpointSettings:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out: give both or none")
        return self


class LLMSettings(BaseSettings):
    """All endpoints by name; `INTERPEDIA_LLM__BASE_URL`, `__MODEL`, `__API_KEY` make `default`."""

    model_config = SettingsConfigDict(
        env_prefix="INTERPEDIA_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    llm: EndpointSettings | None = None
    llm_endpoints: dict[Slug, EndpointSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_default(self) -> LLMSettings:
        if self.llm is not None and DEFAULT_ENDPOINT in self.llm_endpoints:
            raise ValueError(f"'{DEFAULT_ENDPOINT}' is in INTERPEDIA_LLM__* and in INTERPEDIA_LLM_ENDPOINTS")
        return self

    def endpoints(self) -> dict[str, EndpointSettings]:
        """Every endpoint by name."""
        first = {} if self.llm is None else {DEFAULT_ENDPOINT: self.llm}
        return {**first, **self.llm_endpoints}


def load_llm_settings() -> LLMSettings:
    """Read the settings from the environment."""
    return LLMSettings()
