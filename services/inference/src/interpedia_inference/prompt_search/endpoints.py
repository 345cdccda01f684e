"""`GET /v1/prompt-templates`, and `POST /v1/prompt-search` as the gateway asks it before it makes a job."""

from __future__ import annotations

from fastapi import APIRouter, Request

from interpedia_inference.prompt_search.service import check_search, list_templates
from interpedia_inference.visits.reception import LIVE_PROBLEMS, Reception
from interpedia_shared.contracts.live.effects import (
    PromptSearchChecked,
    PromptSearchRequest,
    PromptTemplate,
)
from interpedia_shared.schemas import Page


def prompt_search_router(reception: Reception) -> APIRouter:
    """The routes around the job."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.get("/prompt-templates", summary="Bundled prompt templates")
    async def templates() -> Page[PromptTemplate]:
        """Each with its text, to start one's own from."""
        return list_templates()

    @router.post("/prompt-search", summary="Check a prompt search", responses=LIVE_PROBLEMS)
    async def check(body: PromptSearchRequest, request: Request) -> PromptSearchChecked:
        """Whether the search could begin: nothing is searched here, and no job is made."""
        async with reception.visit(request, body) as visit:
            return await check_search(visit, body)
        raise AssertionError("a visit hides no exception")

    return router
