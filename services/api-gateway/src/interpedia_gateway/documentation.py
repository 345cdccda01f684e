"""How routes are described in OpenAPI: an example of each answer, and the problems it may end in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import Invalid, Problem, Unauthorized, Unavailable

Responses = dict[int | str, dict[str, Any]]


def responses(model: type[BaseModel], example: Any, *problems: type[Problem], status: int = 200) -> Responses:
    """The `responses=` of a route that answers JSON.

    Args:
        model: The schema of the answer.
        example: An answer as it could be.
        problems: What it may end in, besides a wrong key, a wrong field and a database that is away.
        status: The status of the good answer.
    """
    answers: Responses = {
        status: {
            "description": (model.__doc__ or "").strip().split("\n")[0],
            "model": model,
            "content": {"application/json": {"example": example}},
        }
    }
    answers.update(problem_responses(*_ordered(problems)))
    return answers


def problems_only(*problems: type[Problem]) -> Responses:
    """The problems a route may end in, for one whose good answer has no body."""
    return problem_responses(*_ordered(problems))


def with_304(answers: Responses) -> Responses:
    """A route with an ETag: the same answer costs a 304."""
    return {**answers, 304: {"description": "Not modified: `If-None-Match` named these bytes."}}


def file_responses(media_types: dict[str, Any], description: str, *problems: type[Problem]) -> Responses:
    """The `responses=` of a route that answers other things than JSON; an example for each media type."""
    content = {media: {"example": example} for media, example in media_types.items()}
    answers: Responses = {200: {"description": description, "content": content}}
    answers.update(problem_responses(*_ordered(problems)))
    return answers


def _ordered(problems: tuple[type[Problem], ...]) -> list[type[Problem]]:
    always: tuple[type[Problem], ...] = (Unauthorized, Invalid, Unavailable)
    return list(dict.fromkeys((*problems, *always)))
