"""What an HTTP status of an endpoint means: try again, give up this call, or stop the job."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from interpedia_autointerp.llm.request import clean
from interpedia_autointerp.llm.transport import Answered

Meaning = Literal[
    "ok", "limited", "broken", "rejected", "quota", "key_refused", "model_not_found", "redirected"
]

OVERLOADED = frozenset({429, 503, 529})
"""Statuses that ask for less at once. Without a time to wait, those but 429 count as failures too."""

_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in the endpoint's own words."""

    meaning: Meaning
    status: int
    message: str
    param: str | None = None
    wait_s: float | None = None


def understand(answered: Answered) -> Refusal | None:
    """None for an answer of the API's own kind, else what its status and error say."""
    error = _error_of(answered.body)
    status = answered.status
    if status == 200 and error and isinstance(error.get("code"), int):
        # OpenRouter answers 200 and tells the upstream's status inside
        status = error["code"]
    if status == 200 and not error:
        return None
    message = clean(str(error.get("message") or answered.excerpt or "no text"))
    meaning = _meaning(status, str(error.get("code") or error.get("type") or ""), message)
    param = error.get("param")
    wait = retry_after(answered.headers) if meaning in {"limited", "broken", "quota"} else None
    if status in OVERLOADED and wait is not None:
        meaning = "limited"
    return Refusal(meaning, status, message[:300], param if isinstance(param, str) else None, wait)


def _error_of(body: Any) -> Mapping[str, Any]:
    """The error object; OpenAI's form, and the plain ones of other servers."""
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    if "choices" not in body and body.get("object") == "error":
        return body
    return {"message": body["detail"]} if isinstance(body.get("detail"), str) else {}


_BY_STATUS: dict[int, Meaning] = {
    401: "key_refused",
    402: "quota",
    403: "key_refused",
    404: "model_not_found",
    408: "broken",
    409: "broken",
    425: "broken",
    429: "limited",
}


def _meaning(status: int, code: str, message: str) -> Meaning:
    if code in _NO_MONEY:
        return "quota"
    # OpenRouter's word for a prompt that its moderation stopped; the next prompt may pass
    if status == 403 and re.search(r"moderat|flagged", message, re.IGNORECASE):
        return "rejected"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return "broken"
    return "redirected" if 300 <= status < 400 else "rejected"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: Retry-After as seconds or date, its variant in milliseconds, or OpenAI's resets."""
    if (value := _number(headers.get("retry-after-ms"))) is not None:
        return value / 1000
    text = headers.get("retry-after")
    if text is not None:
        if (value := _number(text)) is not None:
            return value
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
    return exhausted_for(headers)


def exhausted_for(headers: Mapping[str, str], *, tokens: int = 1) -> float | None:
    """Seconds until the endpoint's own counters allow a call of so many tokens; None when they do now."""
    waits = [
        duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind, needed in (("requests", 1), ("tokens", tokens))
        if (left := _number(headers.get(f"x-ratelimit-remaining-{kind}"))) is not None and left < needed
    ]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def duration(text: str) -> float | None:
    """Seconds of `6m0s`, `20ms`, `1.5s`, or a bare number of seconds."""
    if (plain := _number(text)) is not None:
        return plain
    parts = _DURATION.findall(text)
    if not parts or "".join(value + unit for value, unit in parts) != text:
        return None
    return sum(float(value) * _SECONDS[unit] for value, unit in parts)


def _number(text: str | None) -> float | None:
    """A finite number that is not negative."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
