"""One request to a host: another one is tried when the first cannot take it, and it ends with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import httpx
import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from interpedia_gateway.live.hosts import Host, Hosts, absent
from interpedia_shared.problems import Busy, DeadlineExceeded, Unavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)

CLIENT_CLOSED = 499
CONNECT_S, WRITE_S, POOL_S = 2.0, 30.0, 5.0
MAX_BROKEN = 2
"""A request that broke two hosts is not shown to a third: it may be the request."""
_PASSED_BACK = ("content-type", "content-length", "retry-after")
_TRY_ANOTHER = frozenset({421, 429, 503})
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask a host.

    `timeout_s` is the longest silence of the host; its own deadline comes before that.
    """

    path: str
    model: str | None
    content: bytes | None = None
    saes: frozenset[str] = frozenset()
    timeout_s: float = 60.0

    @property
    def method(self) -> str:
        """POST when there is something to send."""
        return "GET" if self.content is None else "POST"


class Opened:
    """A host's answer, its body not read yet. It must be closed; that also ends the work on the host."""

    def __init__(self, response: httpx.Response, host: Host, hosts: Hosts) -> None:
        self.response = response
        self.host = host
        self._hosts = hosts
        self._is_open = True

    async def close(self) -> None:
        """Hang up, unless the answer came whole. Closing twice changes nothing."""
        if self._is_open:
            self._is_open = False
            self._hosts.end(self.host)
            with anyio.CancelScope(shield=True):
                await self.response.aclose()

    def headers(self) -> dict[str, str]:
        """What is passed back of the headers."""
        given = self.response.headers
        return {name: given[name] for name in _PASSED_BACK if name in given}


@dataclass(frozen=True, slots=True)
class Whole:
    """A host's answer that was read to its end."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    def response(self) -> Response:
        """The answer as it came."""
        return Response(self.content, self.status, self.headers)


class Calls:
    """Sends one caller's requests."""

    def __init__(self, request: Request, hosts: Hosts, client: httpx.AsyncClient) -> None:
        self._request = request
        self._hosts = hosts
        self._client = client

    async def relayed(self, order: Order) -> Response:
        """The host's answer, byte for byte as it arrives."""
        opened = await self.opened(order)
        return Response(status_code=CLIENT_CLOSED) if opened is None else Relayed(opened, _chunks(opened))

    async def opened(self, order: Order) -> Opened | None:
        """The host's answer as soon as it begins; None when the caller hung up before.

        Raises:
            HostNotReady: no host is ready, or none of the ready ones can be reached.
            Unavailable: hosts broke off.
            DeadlineExceeded: no answer within `order.timeout_s`.
        """
        task = asyncio.create_task(self._open(order))
        found: Opened | None = None
        try:
            found = await self._unless_gone(task)
            return found
        finally:
            if found is None and task.done() and not task.cancelled() and task.exception() is None:
                await task.result().close()  # it came in the moment in which its caller left

    async def whole(self, order: Order) -> Whole | None:
        """The host's answer when it is complete; None when the caller hung up before. Raises as `opened`."""
        return await self._unless_gone(asyncio.create_task(self._read(order)))

    async def _read(self, order: Order) -> Whole:
        opened = await self._open(order)
        try:
            content = await opened.response.aread()
        except httpx.ReadTimeout as error:
            raise _too_late(order) from error
        except httpx.TransportError as error:
            raise broken(opened.host, error) from error
        finally:
            await opened.close()
        return Whole(opened.response.status_code, content, opened.headers())

    async def _unless_gone(self, task: asyncio.Task[T]) -> T | None:
        """The task's result, or None when the caller hung up first; then the task is cancelled."""
        gone = asyncio.create_task(_hang_up(self._request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            log.info("caller_gone", path=self._request.url.path)
            return None
        finally:
            await _cancelled(gone)
            await _cancelled(task)

    async def _open(self, order: Order) -> Opened:
        refusal: Opened | None = None
        n_broken = 0
        for host in await self._hosts.candidates(order.model, order.saes):
            try:
                opened = await self._send(host, order)
            except _NOT_CONNECTED as error:
                self._give_up_on(host, error)
                continue
            except httpx.TimeoutException as error:
                raise _too_late(order) from error
            except httpx.TransportError as error:
                self._give_up_on(host, error)
                n_broken += 1
                if n_broken == MAX_BROKEN:
                    raise broken(host, error) from error
                continue
            if opened.response.status_code not in _TRY_ANOTHER:
                return opened
            refusal = await _kept(opened)
        if refusal is None:
            raise absent(order.model, ["unreachable"])
        return refusal

    async def _send(self, host: Host, order: Order) -> Opened:
        headers = {"x-request-id": self._request.state.request_id, "accept-encoding": "identity"}
        if order.content is not None:
            headers["content-type"] = "application/json"
        timeout = httpx.Timeout(order.timeout_s, connect=CONNECT_S, write=WRITE_S, pool=POOL_S)
        outgoing = self._client.build_request(
            order.method, host.url + order.path, content=order.content, headers=headers, timeout=timeout
        )
        self._hosts.begin(host)
        try:
            response = await self._client.send(outgoing, stream=True)
        except httpx.PoolTimeout as error:
            self._hosts.end(host)
            raise Busy("As many live requests are under way here as may be.", retry_after_s=2) from error
        except BaseException:
            self._hosts.end(host)
            raise
        return Opened(response, host, self._hosts)

    def _give_up_on(self, host: Host, error: httpx.TransportError) -> None:
        log.warning("host_unreachable", host=host.id, model=host.model, error=type(error).__name__)
        self._hosts.put_off(host)


class Relayed(StreamingResponse):
    """An answer whose host is let go of when it ends, however it ends."""

    def __init__(
        self,
        opened: Opened,
        content: AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, opened.response.status_code, headers or opened.headers())
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._opened.close()


def broken(host: Host, error: httpx.TransportError) -> Unavailable:
    """The host went away in the middle."""
    log.warning("host_broke_off", host=host.id, model=host.model, error=type(error).__name__)
    return Unavailable(f"The host of model '{host.model}' broke off. Try again.", retry_after_s=2)


def client_of(max_connections: int) -> httpx.AsyncClient:
    """The process's connections to all hosts."""
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=64)
    return httpx.AsyncClient(limits=limits, follow_redirects=False, trust_env=False)


async def _chunks(opened: Opened) -> AsyncGenerator[bytes]:
    async for chunk in opened.response.aiter_bytes():
        yield chunk


async def _kept(refusal: Opened) -> Opened:
    """A refusal whose connection is given back; its words are kept in case every host refuses."""
    try:
        await refusal.response.aread()
    finally:
        await refusal.close()
    return refusal


async def _hang_up(request: Request) -> None:
    """Return when the caller is gone; its body has been read by now."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _cancelled(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, or asyncio complains that nobody did


def _too_late(order: Order) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The host did not answer within {order.timeout_s:g} s.", extensions={"limit_s": order.timeout_s}
    )
