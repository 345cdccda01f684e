"""Steering runs that are kept under a link because their caller asked for it."""

from __future__ import annotations

import re
import secrets
from typing import Any, cast

import orjson
from sqlalchemy import delete, select

from interpedia_gateway.live.schemas import SharedSteering
from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.contracts.live.steering import SharedRun, SteerRequest
from interpedia_shared.db.models import SteeringRun
from interpedia_shared.db.session import Database
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.problems import Forbidden, Invalid, NotFound, Unauthorized

Json = dict[str, Any]
MAX_REQUEST_BYTES = 1_000_000
_NOT_KEPT = {"share", "stream", "deadline_s"}
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Sharing:
    """One request whose answer is to be kept."""

    def __init__(self, database: Database, caller: Caller, base_url: str, once: Once) -> None:
        self._database = database
        self._caller = caller
        self._base_url = base_url
        self._once = once

    async def keep(self, request: SteerRequest, answer: Json) -> Json:
        """Store request and answer; the answer with its link."""
        run = SteeringRun(
            id=secrets.token_urlsafe(16),
            account_id=self._caller.account_id,
            model_id=request.model,
            request=_storable(request.model_dump(mode="json", exclude=_NOT_KEPT)),
            answer=_storable({name: value for name, value in answer.items() if name != "shared"}),
        )
        shared = SharedRun(id=run.id, url=f"{self._base_url}/v1/steer/shared/{run.id}")
        async with self._database.write() as session:
            earlier = await self._once.claim(session)
            if earlier is None:
                session.add(run)
                await session.flush()
                earlier = await self._once.keep(session, Answer.of(200, shared))
        return {**answer, "shared": orjson.loads(earlier.body)}


def check_shareable(request: SteerRequest, caller: Caller | None) -> Caller | None:
    """Who shares; None when nothing is to be kept.

    Raises:
        Unauthorized: sharing needs a key, so that somebody can take it back.
        Invalid: the request is too large to be kept.
    """
    if not request.share:
        return None
    if caller is None:
        raise Unauthorized("#/share: sharing needs a key, in 'Authorization: Bearer <key>' or 'x-api-key'.")
    size = len(request.model_dump_json())
    if size > MAX_REQUEST_BYTES:
        raise Invalid.field(
            "#/share",
            f"a request of at most {MAX_REQUEST_BYTES} bytes can be kept, this one has {size}",
            limit=MAX_REQUEST_BYTES,
            value=size,
        )
    return caller


async def read_shared(database: Database, run: str) -> SharedSteering:
    """A shared run, for anybody who has its link.

    Raises:
        NotFound: no run has this id.
    """
    async with database.read() as session:
        found = await session.get(SteeringRun, run) if _ID.fullmatch(run) else None
    if found is None:
        raise _not_found(run)
    return SharedSteering(
        id=found.id,
        model=found.model_id,
        created_at=found.created_at,
        request=found.request,
        answer=found.answer,
    )


async def forget_shared(database: Database, caller: Caller, run: str) -> None:
    """Delete a shared run.

    Raises:
        NotFound: no run has this id.
        Forbidden: it is somebody else's.
    """
    if not _ID.fullmatch(run):
        raise _not_found(run)
    async with database.write() as session:
        owner = await session.scalar(select(SteeringRun.account_id).where(SteeringRun.id == run))
        if owner is None:
            raise _not_found(run)
        if owner != caller.account_id and SCOPE_ADMIN not in caller.scopes:
            raise Forbidden("This run was shared by another account.", extensions={"run": run})
        await session.execute(delete(SteeringRun).where(SteeringRun.id == run))


def _not_found(run: str) -> NotFound:
    return NotFound(f"No shared run '{run[:100]}' here: its owner may have taken it back.")


def _storable(value: Json) -> Json:
    """Without NUL characters, which Postgres cannot hold in JSON: a byte-level model may well say one."""
    return cast(Json, _without_nul(value))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\u2400")
    if isinstance(value, list):
        return [_without_nul(one) for one in cast(list[Any], value)]
    if isinstance(value, dict):
        return {name: _without_nul(one) for name, one in cast(Json, value).items()}
    return value
