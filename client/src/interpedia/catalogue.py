"""Models, corpora and SAEs: reading and registering them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, Required, TypedDict
from urllib.parse import quote

from interpedia.listing import items
from interpedia.schemas import Acceptance, Corpus, Model, Publication, Sae
from interpedia.transport import Request, Transport


class CorpusManifest(TypedDict):
    """What `POST /v1/corpora` takes."""

    id: Required[str]
    name: Required[str]
    upload: Required[str]
    model: Required[str]
    context_length: NotRequired[int]
    prepend_bos: NotRequired[bool]


class SaeEntry(TypedDict):
    """One SAE of a manifest."""

    name: Required[str]
    hook: Required[str]
    upload: Required[str]


class SaeManifest(TypedDict):
    """What `POST /v1/saes` takes: SAEs of one model whose dashboards one job builds from one corpus."""

    model: Required[str]
    corpus: Required[str]
    saes: Required[list[SaeEntry]]
    n_tokens: NotRequired[int]
    release: NotRequired[dict[str, Any]]
    settings: NotRequired[dict[str, Any]]


class Models:
    """`client.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """All models."""
        return items(self._transport, "/v1/models", {}, Model)

    def get(self, model_id: str) -> Model:
        """One model."""
        return self._transport.read(Request("GET", f"/v1/models/{quote(model_id, safe='')}"), Model)

    def register(self, manifest: Mapping[str, Any]) -> Acceptance:
        """Asks the server to take in a model; needs an administrator's key."""
        return self._transport.read(Request("POST", "/v1/models", json=dict(manifest)), Acceptance)


class Corpora:
    """`client.corpora`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Corpus]:
        """All corpora."""
        return items(self._transport, "/v1/corpora", {}, Corpus)

    def get(self, corpus_id: str) -> Corpus:
        """One corpus."""
        return self._transport.read(Request("GET", f"/v1/corpora/{quote(corpus_id, safe='')}"), Corpus)

    def register(self, manifest: CorpusManifest) -> Acceptance:
        """Asks the server to tokenise an uploaded corpus."""
        return self._transport.read(Request("POST", "/v1/corpora", json=manifest), Acceptance)


class Saes:
    """`client.saes`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, model: str | None = None, architecture: str | None = None, release: str | None = None
    ) -> Iterator[Sae]:
        """SAEs, narrowed by what is given."""
        narrowed = {"model": model, "architecture": architecture, "release": release}
        return items(self._transport, "/v1/saes", narrowed, Sae)

    def get(self, model_id: str, sae_id: str) -> Sae:
        """One SAE."""
        path = f"/v1/models/{quote(model_id, safe='')}/saes/{quote(sae_id, safe='')}"
        return self._transport.read(Request("GET", path), Sae)

    def publish(self, manifest: SaeManifest) -> Publication:
        """Publishes uploaded SAEs; `client.publish` does this and the upload for one folder."""
        return self._transport.read(Request("POST", "/v1/saes", json=manifest), Publication)
