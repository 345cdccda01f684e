"""Searching, and making the vectors that it needs anew."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from interpedia_gateway.answers import answer
from interpedia_gateway.documentation import responses, with_304
from interpedia_gateway.parameters import OnceKey
from interpedia_gateway.search import examples
from interpedia_gateway.search.filters import SearchFilter, search_filter
from interpedia_gateway.search.schemas import EmbeddingAccepted, Mode, SearchOut
from interpedia_gateway.search.service import Question
from interpedia_gateway.search.upkeep import embed_again
from interpedia_gateway.state import TheGateway
from interpedia_shared.auth import AdminCaller, AnyCaller
from interpedia_shared.problems import (
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    ModelNotFound,
    ReleaseNotFound,
    SAENotFound,
)

router = APIRouter(prefix="/v1", tags=["search"])
MAX_LIMIT = 100


async def search_query(
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=500,
            description="What to look for: words, a sentence, a token, or a feature as `model/sae/index`. "
            'In keyword search quotes, `or` and `-` work as in web searches: `"white house" -colour`.',
            examples=["bodies of water"],
        ),
    ],
) -> str:
    """The query of a request (a dependency).

    Raises:
        Invalid: it is blank, or holds what no text can.
    """
    query = " ".join(q.split())
    if not query or "\x00" in query or any(0xD800 <= ord(character) <= 0xDFFF for character in query):
        raise Invalid.field("q", "holds nothing to look for")
    return query


@router.get(
    "/search",
    summary="Search features",
    responses=with_304(responses(SearchOut, examples.FOUND, ModelNotFound, SAENotFound, ReleaseNotFound)),
)
async def search_features(  # noqa: PLR0917 (mostly dependencies)
    request: Request,
    gateway: TheGateway,
    caller: AnyCaller,
    query: Annotated[str, Depends(search_query)],
    wanted: Annotated[SearchFilter, Depends(search_filter)],
    mode: Annotated[
        Mode,
        Query(
            description="`semantic`: by the meaning of explanations; `keyword`: by their words, by tokens, "
            "by reference; `hybrid`: all of these, fused."
        ),
    ] = "hybrid",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Features in the answer.")] = 20,
) -> Response:
    """Features by what they are said to do, by tokens they promote or peak on, or by exact reference.

    Every feature comes once, with the lists it was found in and the explanation that matched. Filters act
    before anything is ranked. Explanations that were just written are found by their words at once and by
    their meaning as soon as they have a vector.
    """
    found = await gateway.search.find(Question(query, mode, limit, wanted, caller))
    return answer(request, found, private=caller is not None)


@router.post(
    "/search/embeddings",
    status_code=202,
    summary="Embed explanations",
    response_class=Response,
    responses=responses(
        EmbeddingAccepted, {"job": examples.EMBEDDING_JOB}, Forbidden, IdempotencyMismatch, status=202
    ),
)
async def embed_explanations(gateway: TheGateway, caller: AdminCaller, once: OnceKey = None) -> Response:
    """Make vectors for all explanations that have none, or one of another model than is set; a job.

    Needs the scope `admin`.
    """
    return (await embed_again(gateway.database, caller, once)).response()
