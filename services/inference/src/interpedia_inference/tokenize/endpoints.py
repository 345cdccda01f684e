"""`POST /v1/tokenize`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.requests import TokenizeOut, TokenizeRequest


def tokenize_router(reception: Reception) -> APIRouter:
    """The route that tokenises."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.post("/tokenize", summary="Tokens of a text or a chat", responses=LIVE_PROBLEMS)
    async def tokenize(body: TokenizeRequest, request: Request) -> TokenizeOut:
        """Tokens as the model reads them; also of texts that are too long for the other routes."""
        async with reception.visit(request, body) as visit:
            if body.messages is None:
                text = body.text or ""
                ids = (await visit.tokenize(text, prepend_bos=body.prepend_bos, is_limited=False)).ids
            else:
                ids = list((await visit.tokenize_chat(body.messages, is_limited=False)).ids)
            return TokenizeOut(
                token_ids=ids,
                tokens=visit.strings(ids),
                count=len(ids),
                limit=visit.max_text_tokens,
                timings=visit.timings(),
                provenance=visit.provenance(bos=visit.has_bos(ids)),
            )
        raise AssertionError("a visit hides no exception")

    return router
