"""Refusals that name a field of the request by its JSON pointer."""

from __future__ import annotations

from typing import Any, TypeVar

from interpedia_engine.errors import EngineError
from interpedia_shared.problems import Invalid

P = TypeVar("P", bound=Invalid)


def refuse(problem: type[P], field: str, detail: str, **extensions: Any) -> P:
    """One wrong field of a request.

    Args:
        problem: Which documented type.
        field: JSON pointer (`#/saes/0/hook`) or a header's name.
        detail: The fact, with limit and value where there are any.
        extensions: Further members for programs.
    """
    return problem(
        f"{field}: {detail}", extensions={"errors": [{"field": field, "detail": detail}], **extensions}
    )


def refuse_engine(problem: type[P], pointer: str, error: EngineError) -> P:
    """What the engine refused, at the place of the request that it came from."""
    return refuse(problem, pointer, f"{error.field}: {error.detail}", refused=error.field)
