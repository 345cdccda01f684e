"""Explaining, scoring, red-teaming and benchmarking are forwarded to the autointerp API."""

from __future__ import annotations

from fastapi import Request

from interpedia_gateway.forwarding import Forwarder, Target
from interpedia_gateway.state import gateway_of


async def forwarder(request: Request) -> Forwarder:
    """The forwarder of a request (a dependency)."""
    target = Target("autointerp", "Work on explanations", gateway_of(request).autointerp)
    return Forwarder(request, target)
