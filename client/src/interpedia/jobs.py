"""Following long work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast
from urllib.parse import quote

from pydantic import ValidationError

from interpedia.errors import ApiError, JobFailed, ServerUnreachable, WaitedTooLong
from interpedia.listing import items
from interpedia.schemas import Job, JobEvent
from interpedia.server_sent import Message, messages
from interpedia.transport import Request, Transport

POLL_SECONDS = 1.0
# A server that restarts is away for a while; the job itself survives that.
PATIENCE_SECONDS = 120.0


class Jobs:
    """`client.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, job_id: str) -> Job:
        """The job as it is now."""
        return self._transport.read(Request("GET", _path(job_id)), Job)

    def list(self, *, state: str | None = None, kind: str | None = None) -> Iterator[Job]:
        """All jobs, newest first."""
        return items(self._transport, "/v1/jobs", {"state": state, "kind": kind}, Job)

    def cancel(self, job_id: str) -> Job:
        """Asks the job to stop; it does so at the end of the task in hand."""
        return self._transport.read(Request("POST", f"{_path(job_id)}/cancel"), Job)

    def retry(self, job_id: str) -> Job:
        """Runs again what failed of the job."""
        return self._transport.read(Request("POST", f"{_path(job_id)}/retry"), Job)

    def events(self, job_id: str, *, after: int | None = None) -> Iterator[JobEvent]:
        """What happens to the job, as it happens, until the server closes the stream.

        Args:
            job_id: which one.
            after: the id of the last event seen; the stream goes on from there.

        Raises:
            ServerUnreachable: the stream broke off; begin again after the last id, or use `wait`.
        """
        headers = {} if after is None else {"last-event-id": str(after)}
        request = Request("GET", f"{_path(job_id)}/events", headers=headers)
        with self._transport.stream_lines(request) as lines:
            for message in messages(lines):
                event = _event(message)
                if event is not None:
                    yield event

    def wait(
        self,
        job_id: str,
        *,
        progress: Callable[[Job], None] | None = None,
        timeout: float | None = None,
    ) -> Job:
        """Waits for the end of the job, across restarts of the server.

        Args:
            job_id: which one.
            progress: called with every state seen.
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            JobFailed: it failed or was cancelled.
            WaitedTooLong: it goes on after `timeout`.
            ServerUnreachable: the server was away for two minutes.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for job in self._watch(job_id):
            if progress is not None:
                progress(job)
            if job.state == "succeeded":
                return job
            if job.is_over:
                raise JobFailed(job.id, job.state, job.reason)
            if deadline is not None and time.monotonic() > deadline:
                raise WaitedTooLong(f"The job {job.id} goes on ({job.done} of {job.total} done).")
        raise AssertionError("_watch() ends only by an exception")

    def _watch(self, job_id: str) -> Generator[Job]:
        """States for ever: asked for when an event tells of a change, and once a second without events."""
        last_seen = time.monotonic()
        last_event: int | None = None
        while True:
            try:
                yield self.get(job_id)
                last_seen = time.monotonic()
                for event in self.events(job_id, after=last_event):
                    last_event = event.id
                    if event.type != "progress" or time.monotonic() - last_seen >= POLL_SECONDS:
                        yield self.get(job_id)
                        last_seen = time.monotonic()
            except ServerUnreachable:
                if time.monotonic() - last_seen > PATIENCE_SECONDS:
                    raise
            except ApiError as error:
                if error.status < 500 or time.monotonic() - last_seen > PATIENCE_SECONDS:
                    raise
            self._transport.sleep(POLL_SECONDS)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _event(message: Message) -> JobEvent | None:
    """The event in a message; None for a message that carries something else."""
    try:
        body: object = json.loads(message.data)
        if not isinstance(body, dict):
            return None
        fields = cast(dict[str, Any], body)
        if "type" not in fields:
            fields = {"id": message.id, "type": message.event, "data": fields}
        return JobEvent.model_validate(fields)
    except (json.JSONDecodeError, ValidationError):
        return None
