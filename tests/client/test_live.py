"""Live requests: what is sent is what the API takes, and streams end as they should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from interpedia import Client, DeadlineExceeded, Invalid, RetryPolicy, ServerUnreachable
from interpedia.cli import main
from interpedia_shared.contracts.live.activations import ActivationsRequest, LensRequest, TopRequest
from interpedia_shared.contracts.live.effects import AblateRequest, AttributeRequest, PromptSearchRequest
from interpedia_shared.contracts.live.requests import TokenizeRequest
from interpedia_shared.contracts.live.steering import SteerRequest
from tests.support.hosts import ScriptedHost, problem

REF = "tiny/0-res/3"


@pytest.fixture(scope="module")
def one_server() -> Generator[ScriptedHost]:
    with ScriptedHost().running() as server:
        yield server


@pytest.fixture
def server(one_server: ScriptedHost) -> ScriptedHost:
    one_server.reset()
    return one_server


@pytest.fixture
def live_client(server: ScriptedHost) -> Generator[Client]:
    with Client(server.url, "key", retry=RetryPolicy(attempts=1)) as client:
        yield client


Call = Callable[[Client], object]
CALLS: list[tuple[str, type[BaseModel], Call]] = [
    ("tokenize", TokenizeRequest, lambda c: c.live.tokenize("tiny", "a", prepend_bos=False)),
    (
        "tokenize",
        TokenizeRequest,
        lambda c: c.live.tokenize("tiny", messages=[{"role": "user", "content": "a"}]),
    ),
    (
        "activations",
        ActivationsRequest,
        lambda c: c.live.activations("tiny", ["a"], features=[REF], saes=["0-res"]),
    ),
    (
        "activations",
        ActivationsRequest,
        lambda c: c.live.activations("tiny", token_ids=[[0]], saes=["0-res"]),
    ),
    (
        "activations/top",
        TopRequest,
        lambda c: c.live.top_features("tiny", "a", ["0-res"], k=3, max_density=0.1, by="token"),
    ),
    (
        "steer",
        SteerRequest,
        lambda c: c.live.steer(
            "tiny", prompt="a", interventions=[{"sae": "0-res", "feature": 3, "strength": 2}], seed=1
        ),
    ),
    (
        "ablate",
        AblateRequest,
        lambda c: c.live.ablate("tiny", "a", [REF], metric={"good": [" b"], "bad": [" c"]}),
    ),
    (
        "attribute",
        AttributeRequest,
        lambda c: c.live.attribute("tiny", "a", ["0-res"], metric={"good": [" b"]}, exact=0),
    ),
    ("lens", LensRequest, lambda c: c.live.lens("tiny", "a", layers=[0], k=2, deadline_s=3)),
    (
        "prompt-search",
        PromptSearchRequest,
        lambda c: c.live.prompt_search("tiny", ["0-res"], "induction", n=4, controls=[]),
    ),
]


@pytest.mark.parametrize(("path", "shape", "call"), CALLS)
def test_what_is_sent_is_what_the_api_takes(
    live_client: Client, server: ScriptedHost, path: str, shape: type[BaseModel], call: Call
) -> None:
    job = {"id": "1", "state": "queued"}
    server.reply = lambda _: JSONResponse({"job": job})
    call(live_client)
    (seen,) = server.seen
    assert seen.path == f"/v1/{path}"
    body = shape.model_validate(seen.json())
    assert body.model_fields_set == seen.json().keys()


def test_answers_are_objects(live_client: Client, server: ScriptedHost) -> None:
    output: dict[str, Any] = {"text": "b", "tokens": ["b"], "token_ids": [1], "logprobs": [-1.0]}
    server.reply = lambda _: JSONResponse({"default": output, "steered": None, "timings": {"run_ms": 1}})
    answer = live_client.live.steer("tiny", prompt="a", outputs=["default"])
    assert answer.default is not None
    assert (answer.default.text, answer.steered) == ("b", None)
    assert answer.to_dict()["timings"] == {"run_ms": 1}
    server.reply = lambda _: JSONResponse({"items": [{"model": "tiny", "ready": True}]})
    assert [one.to_dict()["model"] for one in live_client.live.models()] == ["tiny"]
    assert server.seen[-1].path == "/v1/live"


class TestStream:
    def test_events_until_done(self, live_client: Client, server: ScriptedHost) -> None:
        events = [b"event: start\ndata: {}\n\n", b": alive\n\n", b'event: token\ndata: {"text": "b"}\n\n']
        server.reply = lambda _: server.stream([*events, b"event: done\ndata: {}\n\n"])
        found = list(live_client.live.steer_stream("tiny", prompt="a"))
        assert [one.event for one in found] == ["start", "token", "done"]
        assert found[1].data.to_dict() == {"text": "b"}
        assert server.seen[0].json() == {"model": "tiny", "prompt": "a", "stream": True}

    def test_an_error_in_the_middle(self, live_client: Client, server: ScriptedHost) -> None:
        error = b'event: error\ndata: {"status": 504, "title": "Deadline", "detail": "not within 3 s"}\n\n'
        server.reply = lambda _: server.stream([b"event: start\ndata: {}\n\n", error])
        with pytest.raises(DeadlineExceeded, match="not within 3 s"):
            list(live_client.live.steer_stream("tiny", prompt="a"))

    @pytest.mark.parametrize("broken", [True, False])
    def test_a_stream_that_just_ends(self, live_client: Client, server: ScriptedHost, broken: bool) -> None:
        server.reply = lambda _: server.stream([b"event: start\ndata: {}\n\n"], broken=broken)
        with pytest.raises(ServerUnreachable):
            list(live_client.live.steer_stream("tiny", prompt="a"))

    def test_a_refusal(self, live_client: Client, server: ScriptedHost) -> None:
        server.reply = lambda _: problem(422, "too-long")
        with pytest.raises(Invalid):
            next(iter(live_client.live.steer_stream("tiny", prompt="a")))

    def test_leaving_the_loop_hangs_up(self, live_client: Client, server: ScriptedHost) -> None:
        server.reply = lambda _: server.stream([b"event: start\ndata: {}\n\n"], for_ever=True)
        events = live_client.live.steer_stream("tiny", prompt="a")
        assert next(iter(events)).event == "start"
        events.close()  # type: ignore[attr-defined]
        assert server.hung_up.wait(10)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _environment(self, server: ScriptedHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INTERPEDIA_URL", server.url)

    def test_top(self, server: ScriptedHost, capsys: pytest.CaptureFixture[str]) -> None:
        found = {"ref": REF, "value": 1.5, "token": " a", "density": 0.001, "explanation": "letters"}
        server.reply = lambda _: JSONResponse({"results": [found, {**found, "density": None}]})
        assert main(["top", "tiny", "a b", "--sae", "0-res", "--sae", "1-res", "--k", "2"]) == 0
        assert server.seen[0].json()["saes"] == ["0-res", "1-res"]
        first, second = capsys.readouterr().out.splitlines()
        assert first.split() == ["1.500", "0.00100", REF, "at", '"', 'a"', "letters"]
        assert REF in second

    def test_steer(self, server: ScriptedHost, capsys: pytest.CaptureFixture[str]) -> None:
        server.reply = lambda _: JSONResponse({"default": {"text": " b"}, "steered": {"text": " c"}})
        assert main(["steer", "tiny", "a", "--add", "0-res/3=1.5", "--tokens", "4"]) == 0
        assert capsys.readouterr().out == "default: a b\nsteered: a c\n"
        (change,) = server.seen[0].json()["interventions"]
        assert change == {"sae": "0-res", "feature": 3, "method": "add", "strength": 1.5}

    @pytest.mark.parametrize("text", ["0-res", "0-res/x=1", "0-res/3=much"])
    def test_what_is_no_intervention(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["steer", "tiny", "a", "--add", text]) == 1
        assert "SAE/FEATURE=STRENGTH" in capsys.readouterr().err

    def test_a_reader_that_has_seen_enough(self, server: ScriptedHost) -> None:
        """As in `interpedia top … | head`: no traceback."""
        found = {"ref": REF, "value": 1.5, "token": " a", "density": 0.001, "explanation": "letters"}
        server.reply = lambda _: JSONResponse({"results": [found]})
        readable, writable = os.pipe()
        os.close(readable)
        code = "from interpedia.cli import main; raise SystemExit(main())"
        command = [sys.executable, "-c", code, "top", "tiny", "a b", "--sae", "0-res"]
        with os.fdopen(writable, "w") as nobody:
            ended = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, check=False)
        assert (ended.returncode, ended.stderr) == (1, b"")

    def test_a_strength_that_is_no_number(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["steer", "tiny", "a", "--add", "0-res/3=nan"]) == 1
        assert "is not SAE/FEATURE=STRENGTH" in capsys.readouterr().err
