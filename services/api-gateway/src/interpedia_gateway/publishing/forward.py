"""Publishing is forwarded to the ingest API."""

from __future__ import annotations

from fastapi import Request

from interpedia_gateway.forwarding import Forwarder, Target
from interpedia_gateway.state import gateway_of


async def forwarder(request: Request) -> Forwarder:
    """The forwarder of a request (a dependency)."""
    return Forwarder(request, Target("ingest", "Publishing", gateway_of(request).ingest))
