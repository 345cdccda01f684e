"""Settings of the ingest API and its workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_settings import NoDecode

from interpedia_shared.settings import ServiceSettings

MIB = 1 << 20
GIB = 1 << 30


class IngestSettings(ServiceSettings):
    """What every service has, and how this one takes in, computes and keeps things."""

    port: int = Field(default=8003, ge=1, le=65535, description="Port to listen on.")

    max_upload_bytes: PositiveInt = Field(default=4 * GIB, description="Largest sum of an upload's files.")
    part_bytes: PositiveInt = Field(default=8 * MIB, description="Size of an upload's parts, but the last.")
    max_open_uploads: PositiveInt = Field(default=16, description="Unfinished uploads of one account.")
    upload_lifetime_s: PositiveInt = Field(
        default=86_400, description="An upload not complete by then is dropped."
    )
    reserve_bytes: NonNegativeInt = Field(
        default=512 * MIB, description="Free space on the data disk that is never used."
    )

    model_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders under which a model of kind `local` may lie; none allows none.",
    )
    model_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of a model's weights."
    )
    device: str = Field(default="cpu", description="Torch device of the workers.")
    torch_threads: PositiveInt = Field(
        default=2, description="Threads of a worker; the last bits of a result may depend on it."
    )

    max_corpus_bytes: PositiveInt = Field(default=4 * GIB, description="Largest corpus, decompressed.")
    max_line_bytes: PositiveInt = Field(default=64 * MIB, description="Longest line (document) of a corpus.")
    rows_per_shard: PositiveInt = Field(default=256, description="Contexts in one task of the forward pass.")
    features_per_task: PositiveInt = Field(default=1024, description="Features in one task of the reduction.")
    max_saes_per_job: PositiveInt = Field(default=64, description="SAEs that share one forward pass.")
    max_dense_values: PositiveInt = Field(
        default=200_000_000,
        description="Tokens × width of a build of an identity dictionary: nothing of it is sparse.",
    )
    max_resident_bytes: PositiveInt = Field(
        default=8 * GIB, description="Models and SAEs that a worker keeps loaded between tasks."
    )

    heartbeat_timeout_s: PositiveFloat = Field(
        default=8.0, description="A worker silent for longer is dead: its tasks go to others."
    )
    sweep_interval_s: PositiveFloat = Field(
        default=5.0, description="Time between two looks for ended builds."
    )
    keep_failed_builds_s: NonNegativeInt = Field(
        default=3_600,
        description="Time in which a failed or cancelled build can be retried where it stopped.",
    )

    @field_validator("model_dirs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Read `INTERPEDIA_MODEL_DIRS` like `PATH`."""
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _parts_fit(self) -> IngestSettings:
        if self.part_bytes > self.max_body_bytes:
            raise ValueError(
                f"part_bytes: {self.part_bytes} is over max_body_bytes {self.max_body_bytes}: "
                "no part would be taken"
            )
        return self


def load_settings() -> IngestSettings:
    """Read the settings from the environment."""
    return IngestSettings()
