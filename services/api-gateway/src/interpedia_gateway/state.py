"""What the gateway's process holds, handed to every route."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, Request

from interpedia_gateway.catalogue.lookup import Versions
from interpedia_gateway.live.hosts import Hosts
from interpedia_gateway.search.service import Search
from interpedia_gateway.search.vectors import TextVectors
from interpedia_gateway.settings import GatewaySettings
from interpedia_gateway.vocabulary import Vocabularies
from interpedia_shared.blobs import BlobStore
from interpedia_shared.db.session import Database


@dataclass(frozen=True, slots=True)
class Gateway:
    """The collaborators of all routes."""

    settings: GatewaySettings
    database: Database
    blobs: BlobStore
    vocabularies: Vocabularies
    versions: Versions
    ingest: httpx.AsyncClient
    autointerp: httpx.AsyncClient
    vectors: TextVectors
    search: Search
    hosts: Hosts
    hosts_client: httpx.AsyncClient
    event_streams: asyncio.Semaphore
    exports: asyncio.Semaphore


async def gateway_dependency(request: Request) -> Gateway:
    """The process's collaborators (a dependency; async, so that it costs no thread)."""
    return gateway_of(request)


def gateway_of(request: Request) -> Gateway:
    """The process's collaborators, put on the app by its factory."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def base_url(request: Request) -> str:
    """How the caller reaches this service, without a slash at the end (a dependency)."""
    configured = gateway_of(request).settings.public_url
    return (configured or str(request.base_url)).rstrip("/")


TheGateway = Annotated[Gateway, Depends(gateway_dependency)]
BaseURL = Annotated[str, Depends(base_url)]
