"""`POST /v1/tokenize`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from interpedia_inference.admission import Cost
from interpedia_inference.answers import json_answer
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_inference.visits.visit import UNLIMITED, Visit
from interpedia_shared.contracts.live.requests import TokenizeOut, TokenizeRequest

_MEMORY = 128
"""Bytes while a text is tokenised, for each byte of it, which may become a token."""


def tokenize_router(reception: Reception) -> APIRouter:
    """The route that tokenises."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post(
        "/tokenize",
        summary="Tokens of a text or a chat",
        response_model=TokenizeOut,
        responses=LIVE_PROBLEMS,
    )
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        """Tokens as the model reads them; of texts too long for the other routes the first ones."""
        async with reception.visit(request, body) as visit:
            ids = await _tokens(visit, body)
            return await json_answer(await asyncio.to_thread(_written, visit, ids))
        raise AssertionError("a visit hides no exception")

    return router


async def _tokens(visit: Visit, body: TokenizeRequest) -> Sequence[int]:
    if body.messages is None:
        text = body.text or ""
        visit.charge(Cost(bytes=_MEMORY * len(text.encode())))
        return (await visit.tokenize(text, prepend_bos=body.prepend_bos, limit=UNLIMITED)).ids
    visit.charge(Cost(bytes=_MEMORY * sum(len(message.content.encode()) for message in body.messages)))
    return (await visit.tokenize_chat(body.messages, limit=UNLIMITED)).ids


def _written(visit: Visit, ids: Sequence[int]) -> TokenizeOut:
    limit = visit.max_text_tokens
    shown = list(ids[:limit])
    return TokenizeOut(
        token_ids=shown,
        tokens=visit.strings(shown),
        count=len(ids),
        limit=limit,
        is_cut=len(ids) > limit,
        timings=visit.timings(),
        provenance=visit.provenance(bos=visit.has_bos(ids)),
    )
