"""Errors, retries, keys and idempotency: what every request has in common."""

from __future__ import annotations

import email.utils
import time

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

import interpedia
from interpedia import (
    ApiError,
    Client,
    Conflict,
    Forbidden,
    InterpediaError,
    Invalid,
    NotFound,
    RetryPolicy,
    ServerFault,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
)
from interpedia.transport import Request, Transport
from tests.client.scripted_server import Script, problem


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, Invalid), (401, Unauthorized), (403, Forbidden), (404, NotFound), (409, Conflict),
            (413, Invalid), (422, Invalid), (500, ServerFault), (502, ServerFault), (418, ApiError),
        ],
    )  # fmt: skip
    def test_each_status_has_its_error(
        self, client: Client, script: Script, status: int, expected: type[ApiError]
    ) -> None:
        script.answers.append(problem(status, "what was wrong"))
        with pytest.raises(ApiError) as caught:
            client.models.get("m")
        assert type(caught.value) is expected
        assert (caught.value.status, str(caught.value)) == (status, "what was wrong")

    def test_fields_are_named(self, client: Client, script: Script) -> None:
        errors = [{"field": "#/hook", "detail": "no such hook"}]
        script.answers.append(problem(422, "The request is wrong.", errors=errors))
        with pytest.raises(Invalid, match=r"The request is wrong\. \(#/hook: no such hook\)"):
            client.models.get("m")

    def test_another_frameworks_errors_are_understood(self, client: Client, script: Script) -> None:
        script.answers.append(
            JSONResponse({"detail": [{"loc": ["query", "limit"], "msg": "too small"}]}, 422)
        )
        with pytest.raises(Invalid, match=r"query\.limit: too small"):
            client.models.get("m")

    def test_a_body_that_is_no_problem_document(self, client: Client, script: Script) -> None:
        script.answers.append(PlainTextResponse("<html>Bad gateway", 502))
        with pytest.raises(ServerFault, match="The server answered 502"):
            client.models.get("m")

    def test_an_answer_of_another_shape(self, client: Client, script: Script) -> None:
        script.answers.append(JSONResponse({"name": "no id"}))
        with pytest.raises(InterpediaError, match=r"not understood \(id: Field required\)"):
            client.models.get("m")

    def test_nobody_there(self) -> None:
        nobody = Client("http://127.0.0.1:9", retry=RetryPolicy(attempts=1))
        with (
            nobody as client,
            pytest.raises(ServerUnreachable, match=r"Nobody answers at http://127\.0\.0\.1:9"),
        ):
            client.models.get("m")

    def test_a_missing_key_is_unauthorized(self, url: str) -> None:
        with Client(url) as client, pytest.raises(Unauthorized):
            client.models.register({"id": "m"})

    def test_the_key_is_not_shown(self, client: Client) -> None:
        assert "good-key" not in repr(client)


class TestRetrying:
    def test_busy_is_tried_again_when_the_server_says(self, url: str, script: Script) -> None:
        pauses: list[float] = []
        script.models["m"] = {"id": "m"}
        script.answers += [problem(429, "busy", {"retry-after": "7"}), problem(503, "busy")]
        transport = Transport(url, retry=RetryPolicy(first_pause=0.25), sleep=pauses.append)
        assert transport.send(Request("GET", "/v1/models/m")).status_code == 200
        assert pauses == [7.0, 0.5]
        transport.close()

    def test_retry_after_may_be_a_date(self, client: Client, script: Script) -> None:
        later = email.utils.formatdate(time.time() + 3600, usegmt=True)
        script.answers.append(problem(503, "closed for an hour", {"retry-after": later}))
        with pytest.raises(Unavailable) as caught:
            client.models.get("m")
        assert caught.value.retry_after == pytest.approx(3600, abs=60)
        assert len(script.seen) == 1, "more patience than ours is not slept through"

    def test_it_gives_up(self, client: Client, script: Script) -> None:
        script.answers += [problem(503, "busy", {"retry-after": "0"})] * 9
        with pytest.raises(Unavailable) as caught:
            client.models.get("m")
        assert caught.value.retry_after == 0.0
        assert len(script.seen) == 3

    @pytest.mark.parametrize("status", [400, 404, 409, 500])
    def test_other_refusals_are_final(self, client: Client, script: Script, status: int) -> None:
        script.answers.append(problem(status, "no"))
        with pytest.raises(ApiError):
            client.models.get("m")
        assert len(script.seen) == 1

    def test_a_post_keeps_its_idempotency_key(self, client: Client, script: Script) -> None:
        script.answers.append(problem(503, "busy", {"retry-after": "0"}))
        client.models.register({"id": "a"})
        client.models.register({"id": "b"})
        keys = [request.headers["idempotency-key"] for request in script.seen]
        assert keys[0] == keys[1], "the repetition is the same request"
        assert keys[1] != keys[2], "the next one is not"

    def test_reads_carry_none(self, client: Client, script: Script) -> None:
        script.models["m"] = {"id": "m"}
        client.models.get("m")
        assert "idempotency-key" not in script.seen[0].headers

    def test_the_key_does_not_follow_a_redirect(self, client: Client, script: Script) -> None:
        script.answers.append(Response(status_code=307, headers={"location": "http://127.0.0.1:9/elsewhere"}))
        with pytest.raises(InterpediaError):
            client.models.get("m")
        assert len(script.seen) == 1


def test_all_that_is_exported_is_listed() -> None:
    assert interpedia.__all__ == sorted(interpedia.__all__)
    assert all(hasattr(interpedia, name) for name in interpedia.__all__)
