"""The catalogue on the wire."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from pydantic import Field

from interpedia_shared.schemas import Schema


class ModelOut(Schema):
    """A language model."""

    id: str
    name: str
    source: dict[str, Any] = Field(description="Where the weights come from; a local folder by name only.")
    shape: dict[str, Any] = Field(description="Sizes: n_layers, d_model, d_mlp, n_heads, d_head, d_vocab.")
    provenance: dict[str, Any] = Field(description="Revision, dtype, hashes, library versions.")
    tokenizer_hash: str
    bos_token_id: int | None = Field(description="null when the tokenizer has no BOS token")
    licence: str | None
    created_at: datetime
    n_saes: int = Field(description="SAEs of it that lists show to this caller.")


class ReleaseOut(Schema):
    """SAEs that were published together."""

    id: str
    name: str
    description: str
    url: str | None
    created_at: datetime
    n_saes: int = Field(description="SAEs of it that lists show to this caller.")


class VersionOut(Schema):
    """One published build of an SAE's dashboards."""

    id: int = Field(description="Pass it as `version=` to read this build after a newer one is published.")
    current: bool
    published_at: datetime
    code_version: str
    corpus: str
    n_contexts: int
    n_tokens: int | None = Field(description="Tokens that were counted; masked ones are not.")
    digest: str | None = Field(description="Digest of all stored numbers; equal for equal input.")


class JobRef(Schema):
    """The job that builds the dashboards."""

    id: uuid.UUID
    state: str
    done: int
    total: int


class SAEOut(Schema):
    """A dictionary of features, as lists show it."""

    model: str
    sae: str = Field(description="Its id, unique within the model.")
    title: str
    release: str | None
    architecture: str
    hook: str
    hook_out: str | None = Field(description="Where a transcoder writes; null when it is `hook`.")
    layer: int
    d_in: int
    d_out: int
    n_features: int
    state: str = Field(description="`pending`, `building`, `ready` or `failed`.")
    visibility: str
    created_at: datetime
    version: int | None = Field(description="The current build; null before the first.")


class WeightsOut(Schema):
    """An SAE's files in SAELens format."""

    sha256: str
    size: int = Field(description="Bytes of sae_weights.safetensors.")
    files: list[str] = Field(description="Paths to download.")


class SAEDetail(SAEOut):
    """A dictionary of features with its builds and their provenance."""

    description: str
    config: dict[str, Any]
    weights: WeightsOut | None = Field(description="null for the identity dictionary (raw neurons)")
    job: JobRef | None = Field(description="The newest build job.")
    summary: dict[str, Any] | None = Field(description="Numbers over all features of the current build.")
    settings: dict[str, Any] | None
    provenance: dict[str, Any] | None
    versions: list[VersionOut] = Field(description="All published builds, newest first.")


class CorpusSource(Schema):
    """Documents of one source and licence."""

    source: str
    licence: str
    n_documents: int


class CorpusOut(Schema):
    """A text data set, tokenised."""

    id: str
    name: str
    state: str
    tokenizer_hash: str
    context_length: int = Field(description="Tokens of a context, BOS included.")
    prepend_bos: bool
    n_contexts: int
    n_tokens: int = Field(description="BOS included.")
    n_documents: int
    digest: str
    created_at: datetime
    job: uuid.UUID | None


class CorpusDetail(CorpusOut):
    """A corpus with where its text comes from."""

    provenance: dict[str, Any]
    sources: list[CorpusSource] = Field(description="The 200 sources with the most documents.")
