"""Explanations: read them with their evidence, write one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from interpedia.listing import items
from interpedia.references import FeatureRef
from interpedia.schemas import Explanation
from interpedia.transport import Request, Transport

Role = Literal["input", "output", "both"]


class Explanations:
    """`client.explanations`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, ref: FeatureRef | str) -> Iterator[Explanation]:
        """All explanations of a feature: the default first, the others newest first."""
        return items(self._transport, _of(ref), {"limit": 100}, Explanation)

    def get(self, explanation: int) -> Explanation:
        """One explanation with all its scores and verdicts.

        Raises:
            NotFound: there is none with this id.
        """
        return self._transport.read(Request("GET", _path(explanation)), Explanation)

    def add(self, ref: FeatureRef | str, text: str, *, role: Role | None = None) -> Explanation:
        """Adds an explanation of one's own; its author is the key's account.

        Raises:
            Unauthorized: it needs a key.
            Invalid: the text is blank, too long, or holds characters that do not show.
            Conflict: the account has said these very words about the feature already.
        """
        return self._transport.read(Request("POST", _of(ref), json=_said(text, role)), Explanation)

    def edit(self, explanation: int, *, text: str | None = None, role: Role | None = None) -> Explanation:
        """Changes one's own explanation.

        Raises:
            Forbidden: it is somebody else's.
            Conflict: its text was scored; add another one.
        """
        request = Request("PATCH", _path(explanation), json=_said(text, role))
        return self._transport.read(request, Explanation)

    def delete(self, explanation: int) -> None:
        """Deletes one's own explanation with its scores.

        Raises:
            Forbidden: it is somebody else's.
        """
        self._transport.send(Request("DELETE", _path(explanation)))


def _of(ref: FeatureRef | str) -> str:
    return f"{FeatureRef.parse(ref).path}/explanations"


def _path(explanation: int) -> str:
    return f"/v1/explanations/{explanation:d}"


def _said(text: str | None, role: Role | None) -> dict[str, str]:
    given = {"text": text, "role": role}
    return {name: value for name, value in given.items() if value is not None}
