"""Exports take a slot before they are answered: who gets none is told so, not left waiting in a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from interpedia_shared.problems import Unavailable

STALL_S = 60.0
"""How long a reader may take nothing; a slot is not held for one that went to sleep."""


async def take_slot(slots: asyncio.Semaphore) -> None:
    """Take a slot without waiting.

    Raises:
        Unavailable: all are taken.
    """
    if slots.locked():
        raise Unavailable("As many exports are running as may run at once.", retry_after_s=30)
    await slots.acquire()  # one is free and nothing ran in between, so this does not wait


class SlotResponse(StreamingResponse):
    """A stream that holds a slot, taken already, and gives it back however it ends."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        slots: asyncio.Semaphore,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._slots = slots
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(STALL_S):
                await send(message)

        # Not in the generator: one that was never started does not run its `finally`.
        try:
            await super().__call__(scope, receive, bounded)
        finally:
            self._slots.release()
            await self._content.aclose()
