"""Settings that several services share, read from `INTERPEDIA_*` variables and never at import."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """Where Postgres is. The URL has no default: a missing one names itself at the start."""

    model_config = SettingsConfigDict(
        env_prefix="INTERPEDIA_DATABASE__", frozen=True, extra="ignore", populate_by_name=True
    )

    url: SecretStr = Field(description="postgresql://user:password@host:port/name")
    pool_size: PositiveInt = Field(default=8, description="Connections kept by each process.")
    pool_overflow: int = Field(default=8, ge=0, description="Connections above the pool under load.")
    statement_timeout_ms: PositiveInt = Field(
        default=30_000, description="Longest statement of an API request."
    )

    def sqlalchemy_url(self) -> str:
        """The URL as SQLAlchemy's asyncpg dialect wants it."""
        return "postgresql+asyncpg://" + self._rest()

    def asyncpg_url(self) -> str:
        """The URL as plain asyncpg wants it."""
        return "postgresql://" + self._rest()

    def _rest(self) -> str:
        return self.url.get_secret_value().split("://", 1)[1]


class ServiceSettings(BaseSettings):
    """What every service process needs besides its own settings."""

    model_config = SettingsConfigDict(
        env_prefix="INTERPEDIA_", frozen=True, extra="ignore", populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(ge=1, le=65535, description="Port to listen on.")
    data_dir: Path = Field(default=Path("var"), description="Folder for weights, uploads, spills and logs.")
    log_level: str = Field(default="INFO", description="Lowest level that is logged.")
    log_format: str = Field(
        default="json", pattern="^(json|text)$", description="json for machines, text for people."
    )
    docs_url: str = Field(
        default="https://interpedia.org/problems/", description="Prefix of the `type` of every problem."
    )
    max_body_bytes: PositiveInt = Field(default=16 * 1024 * 1024, description="Largest request body taken.")


def load_database_settings() -> DatabaseSettings:
    """Read the database group from the environment."""
    return DatabaseSettings()  # pyright: ignore[reportCallIssue]
