"""What a live route does: look up what is named, ask a host, add what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request, Response

from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_gateway.live.calls import CLIENT_CLOSED, Calls, Order, Whole
from interpedia_gateway.live.naming import places_of
from interpedia_gateway.live.streams import EventRelay, Keep
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import AnyCaller
from interpedia_shared.contracts.live.requests import ModelRequest
from interpedia_shared.contracts.live.steering import SteerRequest
from interpedia_shared.db.session import ReadSession

Json = dict[str, Any]
Join = Callable[[ReadSession, Json, Mapping[str, SAEPlace]], Awaitable[None]]
GRACE_S = 10.0
"""A host gives up by itself at the deadline and says so; only one that says nothing is given up on."""
LARGE_BYTES = 200_000
"""Above this, JSON is read and written in a thread."""


class Live:
    """Live requests of one caller."""

    def __init__(self, request: Request, gateway: TheGateway, caller: AnyCaller) -> None:
        self._request = request
        self._gateway = gateway
        self._caller = caller
        self._calls = Calls(request, gateway.hosts, gateway.hosts_client)

    async def relay(self, body: ModelRequest) -> Response:
        """The host's answer as it is."""
        return await self._calls.relayed(await self.order(body))

    async def relay_get(self, path: str, model: str | None) -> Response:
        """A host's answer to a GET."""
        return await self._calls.relayed(Order(path, model, timeout_s=self._gateway.settings.live_timeout_s))

    async def joined(self, body: ModelRequest, join: Join) -> Response:
        """The host's answer with what is stored about its features."""
        places = await places_of(self._gateway.database, self._caller, body)
        whole = await self._calls.whole(self._order_of(body))
        if whole is None:
            return Response(status_code=CLIENT_CLOSED)
        if whole.status != 200:
            return whole.response()
        answer: Json = await _in_thread_if(len(whole.content), orjson.loads, whole.content)
        async with self._gateway.database.read() as session:
            await join(session, answer, places)
        content = await _in_thread_if(len(whole.content), orjson.dumps, answer)
        return Response(content, media_type="application/json")

    async def steer(self, body: SteerRequest, keep: Keep | None) -> Response:
        """Steering, streamed or not; `keep` stores the answer and adds its link."""
        order = await self.order(body)
        if body.stream:
            opened = await self._calls.opened(order)
            if opened is None:
                return Response(status_code=CLIENT_CLOSED)
            return EventRelay(opened, self._request, keep).response()
        if keep is None:
            return await self._calls.relayed(order)
        whole = await self._calls.whole(order)
        if whole is None:
            return Response(status_code=CLIENT_CLOSED)
        if whole.status != 200:
            return whole.response()
        return Response(orjson.dumps(await keep(orjson.loads(whole.content))), media_type="application/json")

    async def asked(self, body: ModelRequest) -> Whole | None:
        """The host's whole answer; None when the caller hung up."""
        return await self._calls.whole(await self.order(body))

    async def order(self, body: ModelRequest) -> Order:
        """What is asked of a host, all that it names looked up.

        Raises:
            ModelNotFound, SAENotFound, FeatureNotFound: something it names is not there for this caller.
        """
        await places_of(self._gateway.database, self._caller, body)
        return self._order_of(body)

    def _order_of(self, body: ModelRequest) -> Order:
        limit = body.deadline_s or self._gateway.settings.live_timeout_s
        return Order(
            path=self._request.scope["route"].path,
            model=body.model,
            content=body.model_dump_json(exclude_unset=True, exclude={"share"}).encode(),
            saes=frozenset(body.saes_named()),
            timeout_s=limit + GRACE_S,
        )


async def _in_thread_if(size: int, work: Callable[[Any], Any], value: Any) -> Any:
    return work(value) if size < LARGE_BYTES else await asyncio.to_thread(work, value)


async def live_of(request: Request, gateway: TheGateway, caller: AnyCaller) -> Live:
    """Live requests of whoever sent this one (a dependency)."""
    return Live(request, gateway, caller)


TheLive = Annotated[Live, Depends(live_of)]
