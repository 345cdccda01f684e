"""Search, explanations and work on them: what is sent is what the API takes, and answers are read."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interpedia import BadReference, Client, RetryPolicy
from interpedia.cli import main
from interpedia_gateway import examples as shared_examples
from interpedia_gateway.explanations import examples as explanation_examples
from interpedia_gateway.explanations.schemas import ExplanationEdit, ExplanationRequest
from interpedia_gateway.search import examples as search_examples
from interpedia_shared.contracts.autointerp import (
    BenchmarkRequest,
    ExplainRequest,
    RedTeamRequest,
    ScoreRequest,
)
from tests.support.serving import serving

REF = "smollm2-135m-instruct/15-res-3k/42"
OF = "/v1/models/smollm2-135m-instruct/saes/15-res-3k/features/42/explanations"


def reply(method: str, path: str) -> dict[str, Any]:
    """The documented example."""
    if path == "/v1/search":
        return search_examples.FOUND
    if path.startswith("/v1/explanations/") or (path == OF and method == "POST"):
        return explanation_examples.EXPLANATION
    if path == OF:
        return {"items": [explanation_examples.EXPLANATION], "next_cursor": None}
    if method == "POST":
        return {"job": shared_examples.JOB, "runs": {"token-lookup": "r"}}
    return {"items": [{"name": "token-lookup"}]}


@dataclass
class Api:
    """Answers with the documented examples and remembers what was asked."""

    seen: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        path, method = request.url.path, request.method
        self.seen.append((method, path, dict(request.query_params), await request.json() if raw else None))
        if method == "DELETE":
            return Response(status_code=204)
        return JSONResponse(reply(method, path), 202 if method == "POST" else 200)

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PATCH", "DELETE"]
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=methods)])


@pytest.fixture(scope="module")
def served() -> Generator[tuple[Api, str]]:
    api = Api()
    with serving(api.app()) as url:
        yield api, url


@pytest.fixture
def api(served: tuple[Api, str]) -> Api:
    served[0].seen.clear()
    return served[0]


@pytest.fixture
def caller(served: tuple[Api, str], api: Api) -> Generator[Client]:
    del api
    with Client(served[1], "key", retry=RetryPolicy(attempts=1)) as client:
        yield client


def test_a_search_names_what_it_found_and_how(caller: Client, api: Api) -> None:
    found = caller.search("bodies of water", mode="hybrid", model="m", min_score=0.5, limit=3)
    assert api.seen == [
        (
            "GET",
            "/v1/search",
            {"q": "bodies of water", "mode": "hybrid", "model": "m", "min_score": "0.5", "limit": "3"},
            None,
        )
    ]
    (hit,) = found.items
    assert hit.text == "rivers and lakes"
    assert hit.matches[0].to_dict()["by"] == "meaning"
    assert found.note is None
    assert caller.search.embed_again().kind


def test_explanations_are_read_and_written(caller: Client, api: Api) -> None:
    assert [one.text for one in caller.explanations.list(REF)] == ["rivers and lakes"]
    assert caller.explanations.get(17).best_score == 0.91
    added = caller.explanations.add(REF, "rivers", role="input")
    assert added.scores[0].to_dict()["baseline"] == 0.51
    caller.explanations.edit(17, text="lakes")
    caller.explanations.delete(17)
    asked = [(method, path) for method, path, _, _ in api.seen]
    one = "/v1/explanations/17"
    assert asked == [("GET", OF), ("GET", one), ("POST", OF), ("PATCH", one), ("DELETE", one)]
    assert ExplanationRequest.model_validate(api.seen[2][3]).role == "input"
    assert ExplanationEdit.model_validate(api.seen[3][3]).text == "lakes"
    with pytest.raises(BadReference):
        caller.explanations.add("42", "rivers")


WORK: list[tuple[str, type[BaseModel], Any]] = [
    (
        "explain",
        ExplainRequest,
        lambda c: c.autointerp.explain(["token-lookup"], ["rule"], features=[REF], dry_run=True),
    ),
    ("score", ScoreRequest, lambda c: c.autointerp.score([{"name": "rule"}], explanations=[17])),
    ("redteam", RedTeamRequest, lambda c: c.autointerp.redteam(feature=REF, hypothesis="rivers", rounds=2)),
    (
        "benchmarks",
        BenchmarkRequest,
        lambda c: c.autointerp.benchmark(
            ["token-lookup"], ["rule"], saes=["smollm2-135m-instruct/15-res-3k"], budget={"tokens": 1}
        ),
    ),
]


@pytest.mark.parametrize(("name", "contract", "call"), WORK, ids=lambda value: str(value)[:20])
def test_work_is_what_the_api_takes(
    caller: Client, api: Api, name: str, contract: type[BaseModel], call: Any
) -> None:
    work = call(caller)
    assert work.job.id
    ((method, path, _, body),) = api.seen
    assert (method, path) == ("POST", f"/v1/{name}")
    contract.model_validate(body)


def test_methods_and_endpoints_are_lists(caller: Client) -> None:
    assert caller.autointerp.methods()[0].to_dict() == {"name": "token-lookup"}
    assert caller.autointerp.endpoints()


def test_the_command_line(served: tuple[Api, str], api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    url = ["--url", served[1]]
    assert main([*url, "search", "water", "--min-score", "0.5", "--limit", "1"]) == 0
    assert "meaning+tokens  rivers and lakes" in capsys.readouterr().out
    assert api.seen[-1][2] == {"q": "water", "mode": "hybrid", "limit": "1", "min_score": "0.5"}
    assert main([*url, "--api-key", "k", "explanations", REF, "--add", "rivers"]) == 0
    assert capsys.readouterr().out.startswith("*       17   0.91  human (owner)  rivers and lakes")
    assert [one[0] for one in api.seen[1:]] == ["POST", "GET"]
