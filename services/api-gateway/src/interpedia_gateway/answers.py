"""Answers with an ETag: the body's own digest, so that it changes exactly when the bytes do."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response
from pydantic import BaseModel

VARY = "Authorization, X-API-Key"


def matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names this ETag."""
    if header is None:
        return False
    candidates = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in candidates or etag in candidates


def answer(request: Request, body: BaseModel, *, private: bool = False) -> Response:
    """Render a body, or 304 when the caller has these bytes already; caches ask each time.

    Args:
        request: The request, for its `If-None-Match`.
        body: What to send.
        private: It is meant for this caller only; shared caches must not keep it.
    """
    content = body.model_dump_json().encode()
    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    scope = "private" if private else "public"
    headers = {"ETag": etag, "Cache-Control": f"{scope}, no-cache", "Vary": VARY}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")
