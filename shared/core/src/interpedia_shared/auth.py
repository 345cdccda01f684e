"""Who is calling. Reads are open; a key that is given must be right, everywhere."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select

from interpedia_shared.db.models import Account, APIKey
from interpedia_shared.db.session import Database, ReadSession
from interpedia_shared.problems import Forbidden, Unauthorized

KEY_PREFIX = "ip_"
SCOPE_PUBLISH = "publish"
SCOPE_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """An account that showed a valid key."""

    account_id: int
    name: str
    scopes: frozenset[str]


def new_key() -> tuple[str, str, bytes]:
    """Make a key: (the key, its public prefix, its SHA-256). High entropy needs no slow hash."""
    prefix = KEY_PREFIX + secrets.token_hex(4)
    key = f"{prefix}_{secrets.token_urlsafe(32)}"
    return key, prefix, hashlib.sha256(key.encode()).digest()


def presented_key(request: Request) -> str | None:
    """The key of a request: `Authorization: Bearer` or `x-api-key`; None when there is neither."""
    header = request.headers.get("authorization")
    if header is not None:
        kind, _, value = header.partition(" ")
        if kind.lower() != "bearer" or not value.strip():
            raise Unauthorized("Authorization: only 'Bearer <key>' is understood.")
        return value.strip()
    return request.headers.get("x-api-key")


async def identify(session: ReadSession, key: str) -> Caller:
    """Find the account of a key.

    Raises:
        Unauthorized: unknown, wrong, expired or revoked; the answer does not tell which of the first two.
    """
    prefix = "_".join(key.split("_")[:2])
    found = (
        await session.execute(
            select(APIKey, Account)
            .join(Account, Account.id == APIKey.account_id)
            .where(APIKey.prefix == prefix)
        )
    ).one_or_none()
    digest = hashlib.sha256(key.encode()).digest()
    if found is None or not hmac.compare_digest(found[0].sha256, digest):
        raise Unauthorized("This key is not known here.")
    api_key, account = found
    if api_key.revoked_at is not None:
        raise Unauthorized(f"Key {api_key.prefix}… was revoked.")
    if api_key.expires_at is not None and api_key.expires_at <= datetime.now(UTC):
        raise Unauthorized(f"Key {api_key.prefix}… has expired.")
    return Caller(account.id, account.name, frozenset(api_key.scopes))


def database_of(request: Request) -> Database:
    """The process's database, put on the app by its lifespan or factory."""
    database: Database = request.app.state.database
    return database


async def optional_caller(request: Request) -> Caller | None:
    """The caller of a route that is open to all: none without a key, 401 with a wrong one."""
    key = presented_key(request)
    if key is None:
        return None
    async with database_of(request).read() as session:
        return await identify(session, key)


async def required_caller(request: Request) -> Caller:
    """The caller of a route that needs a key."""
    caller = await optional_caller(request)
    if caller is None:
        raise Unauthorized("This needs a key, in 'Authorization: Bearer <key>' or 'x-api-key: <key>'.")
    return caller


def _with_scope(caller: Caller, scope: str) -> Caller:
    if scope not in caller.scopes and SCOPE_ADMIN not in caller.scopes:
        raise Forbidden(f"This key lacks the scope '{scope}'.", extensions={"scope": scope})
    return caller


async def publisher(caller: Annotated[Caller, Depends(required_caller)]) -> Caller:
    """A caller who may publish."""
    return _with_scope(caller, SCOPE_PUBLISH)


async def administrator(caller: Annotated[Caller, Depends(required_caller)]) -> Caller:
    """A caller who may register models: that makes the server read files or fetch from a hub."""
    return _with_scope(caller, SCOPE_ADMIN)


AnyCaller = Annotated[Caller | None, Depends(optional_caller)]
KeyCaller = Annotated[Caller, Depends(required_caller)]
PublishCaller = Annotated[Caller, Depends(publisher)]
AdminCaller = Annotated[Caller, Depends(administrator)]
