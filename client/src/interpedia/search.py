"""Search: features by what they are said to do, by tokens, or by name."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Unpack, cast

from interpedia.schemas import Found, Job
from interpedia.transport import Parameters, Request, Transport


class SearchFilters(TypedDict, total=False):
    """How to search, and where; the API documents each."""

    mode: Literal["hybrid", "semantic", "keyword"]
    model: str
    sae: str
    release: str
    author: str
    min_score: float
    min_density: float
    max_density: float
    limit: int


class Search:
    """`client.search`: call it with what to look for."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __call__(self, query: str, **filters: Unpack[SearchFilters]) -> Found:
        """Features, best first; `note` says what a hybrid search had to do without.

        Raises:
            Invalid: the query is blank or longer than 500 characters.
            NotFound: no such model, SAE or release.
            Unavailable: a semantic search where nothing makes vectors.
        """
        parameters = cast(Parameters, {"q": query, **filters})
        return self._transport.read(Request("GET", "/v1/search", parameters), Found)

    def embed_again(self) -> Job:
        """Begins the job that makes vectors for explanations without one of the present model.

        Raises:
            Forbidden: it needs a key with the scope `admin`.
        """
        answer = self._transport.read(Request("POST", "/v1/search/embeddings"), dict[str, Any])
        return Job.model_validate(answer["job"])
