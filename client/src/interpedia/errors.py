"""Everything the client raises.

InterpediaError
├── ServerUnreachable   nobody answers at the address
├── BadReference        a text that should name a feature does not
├── FileProblem         a file to upload is missing or not what it should be
├── UploadInterrupted   some parts did not arrive; `upload_id` continues it
├── JobFailed           a job that was waited for failed or was cancelled
├── WaitedTooLong       a job that was waited for did not end in time
└── ApiError            the server refused, with a problem document
    ├── Invalid         400, 413, 415, 422: something in the request is wrong
    ├── Unauthorized    401: no key, or not a valid one
    ├── Forbidden       403: the key may not do this
    ├── NotFound        404
    ├── Conflict        409: it exists, or is in another state
    ├── Unavailable     429, 503: later; `retry_after` says when
    ├── DeadlineExceeded  504: not done within the request's time
    └── ServerFault     any other 5xx
"""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any, cast

import httpx


class InterpediaError(Exception):
    """Base of all errors of this package; its text is one sentence for a person."""


class ServerUnreachable(InterpediaError):
    """Nobody answers at the address."""


class BadReference(InterpediaError):
    """A text that should name a feature does not."""


class FileProblem(InterpediaError):
    """A file to upload is missing or not what it should be."""


class UploadInterrupted(InterpediaError):
    """Some parts did not arrive. `upload_id` continues the upload."""

    def __init__(self, upload_id: str, reason: str) -> None:
        self.upload_id = upload_id
        super().__init__(f"The upload broke off ({reason}); continue it with the upload id {upload_id}.")


class JobFailed(InterpediaError):
    """A job that was waited for failed or was cancelled."""

    def __init__(self, job_id: str, state: str, reason: str | None) -> None:
        self.job_id = job_id
        self.state = state
        self.reason = reason
        super().__init__(f"The job {job_id} {state}" + (f": {reason}" if reason else "."))


class WaitedTooLong(InterpediaError):
    """A job that was waited for did not end in time; it goes on."""


@dataclass(frozen=True)
class Problem:
    """A problem document (RFC 9457)."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    fields: tuple[tuple[str, str], ...] = ()
    """Pairs of (field, what is wrong with it)."""


class ApiError(InterpediaError):
    """The server refused. `problem` holds what it said."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem = problem
        self.status = problem.status
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again, when it said so."""
        said = problem.detail or problem.title
        more = "; ".join(f"{field}: {fact}" for field, fact in problem.fields if fact not in said)
        super().__init__(f"{said} ({more})" if more else said)


class Invalid(ApiError):
    """400, 413, 415, 422: something in the request is wrong."""


class Unauthorized(ApiError):
    """401: no key, or not a valid one."""


class Forbidden(ApiError):
    """403: the key may not do this."""


class NotFound(ApiError):
    """404: there is no such thing."""


class Conflict(ApiError):
    """409: it exists already, or is in a state that does not allow this."""


class Unavailable(ApiError):
    """429, 503: later. `retry_after` says when."""


class DeadlineExceeded(ApiError):
    """504: not done within the request's time (`deadline_s`)."""


class ServerFault(ApiError):
    """Any other 5xx: the server's own fault."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(response: httpx.Response) -> ApiError:
    """The error for a response whose body has been read and whose status is 400 or more."""
    return _error(_problem(response), retry_after(response))


def error_in(document: object) -> ApiError:
    """The error for a problem document that came within a stream."""
    if not isinstance(document, dict):
        return _error(Problem(500, "Stream failed", "The server's stream failed without saying why."), None)
    fields = cast(dict[str, Any], document)
    status = fields.get("status")
    return _error(_read(fields, status if isinstance(status, int) else 500, "Stream failed"), None)


def _error(problem: Problem, later: float | None) -> ApiError:
    fallback = ServerFault if problem.status >= 500 else ApiError
    return _BY_STATUS.get(problem.status, fallback)(problem, later)


def retry_after(response: httpx.Response) -> float | None:
    """The seconds of the Retry-After header, which may be a number or a date; None when there is none."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _problem(response: httpx.Response) -> Problem:
    title = response.reason_phrase or f"Status {response.status_code}"
    try:
        body: object = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        return Problem(response.status_code, title, f"The server answered {response.status_code} {title}.")
    return _read(cast(dict[str, Any], body), response.status_code, title)


def _read(document: dict[str, Any], status: int, title: str) -> Problem:
    detail = document.get("detail")
    return Problem(
        status=status,
        title=str(document.get("title") or title),
        detail=detail if isinstance(detail, str) else "",
        type=str(document.get("type") or "about:blank"),
        fields=_fields(document.get("errors") or detail),
    )


def _fields(errors: object) -> tuple[tuple[str, str], ...]:
    """Field errors in our form (`field`, `detail`) or in FastAPI's own (`loc`, `msg`)."""
    if not isinstance(errors, list):
        return ()
    found: list[tuple[str, str]] = []
    for entry in cast(list[object], errors):
        if isinstance(entry, dict):
            fields = cast(dict[str, Any], entry)
            place = fields.get("field") or ".".join(str(part) for part in fields.get("loc", ()))
            found.append((str(place), str(fields.get("detail") or fields.get("msg") or "is wrong")))
    return tuple(found)
