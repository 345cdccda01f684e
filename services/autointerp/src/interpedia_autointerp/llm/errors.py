"""What stops a job's calls altogether. What spoils one answer only is a `Failure` of that answer.

EndpointFailed (Problem)   dead, wrong key, unknown model: every other call would fail alike
MissingCapability (Problem)  the endpoint cannot do what a method needs
JobPaused                  the job is to wait, and can be retried from where it is
├── QuotaExhausted         the endpoint wants money, or tells to wait for longer than our patience
└── BudgetExhausted        the job's own cap
"""

from __future__ import annotations

import uuid
from typing import ClassVar


class JobPaused(Exception):
    """The job cannot go on now; what it has is kept, and a retry goes on from there.

    Attributes:
        reason: `quota` or `budget`.
        detail: one sentence for people.
        retry_after_s: when trying again makes sense, if known.
    """

    reason: ClassVar[str] = "paused"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class QuotaExhausted(JobPaused):
    """The endpoint answers 402 or `insufficient_quota`, or its rate limit outlasts our patience."""

    reason = "quota"


class BudgetExhausted(JobPaused):
    """The next call may cost more than what is left of the job's budget, so it was not sent.

    `may_fit_later`: only reservations of calls under way stand against it, which mostly cost less in the end.
    """

    reason = "budget"

    def __init__(self, detail: str, *, job_id: uuid.UUID, may_fit_later: bool = False) -> None:
        super().__init__(detail)
        self.job_id = job_id
        self.may_fit_later = may_fit_later
