"""Refusals that name a field of the request, with the limit and the value where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from interpedia_shared.problems import Invalid


def over_limit(where: str, what: str, *, limit: float, value: float) -> Invalid:
    """More than one request may ask for.

    Args:
        where: JSON pointer of the field to make smaller.
        what: What is counted, e.g. `k × tokens`.
        limit: The most that is taken.
        value: What was asked for.
    """
    detail = f"{what} is {value}, the limit is {limit}"
    error = {"field": where, "detail": detail, "limits": {"limit": limit, "value": value}}
    return Invalid(f"{where}: {detail}.", extensions={"limit": limit, "value": value, "errors": [error]})


def outside(where: str, number: int, *, first: int, last: int, of: str) -> Invalid:
    """A number that is not within `first..last` of something, e.g. a position outside the text."""
    detail = f"{number} is outside {first}..{last}, {of}"
    error = {"field": where, "detail": detail, "limits": {"first": first, "last": last, "value": number}}
    return Invalid(f"{where}: {detail}.", extensions={"first": first, "last": last, "errors": [error]})


def check_positions(positions: Sequence[int], n_tokens: int, *, where: str = "#/positions") -> None:
    """Check that positions lie within a text of `n_tokens` tokens.

    Raises:
        Invalid: names the first one that does not, and the range.
    """
    for number, position in enumerate(positions):
        if not 0 <= position < n_tokens:
            raise outside(
                f"{where}/{number}", position, first=0, last=n_tokens - 1, of="the positions of the text"
            )
