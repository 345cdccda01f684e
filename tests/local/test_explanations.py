"""Explaining the demo against a server that speaks the API: first run, second run, half-done runs, an LLM."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interpedia import Client, JobFailed, RetryPolicy
from interpedia_local.demo import MODEL, SAES, SHOWN
from interpedia_local.explanations import LLM_FEATURES, LLM_METHOD, LLM_TOKENS, RULES, DemoExplanations
from tests.support.serving import serving


@dataclass
class Server:
    """Takes orders of explanations; its jobs have ended as soon as they are asked for."""

    endpoints: list[str] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    retried: list[str] = field(default_factory=list)
    ends: str = "succeeded"

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/endpoints", self.list_endpoints),
                Route("/v1/explain", self.explain, methods=["POST"]),
                Route("/v1/jobs", self.list_jobs),
                Route("/v1/jobs/{id}", self.get_job),
                Route("/v1/jobs/{id}/retry", self.retry, methods=["POST"]),
            ]
        )

    async def list_endpoints(self, request: Request) -> Response:
        return JSONResponse({"items": [{"name": name} for name in self.endpoints]})

    async def list_jobs(self, request: Request) -> Response:
        assert request.query_params["kind"] == "explain"
        return JSONResponse({"items": list(self.jobs.values())[::-1], "next_cursor": None})

    async def explain(self, request: Request) -> Response:
        order = await request.json()
        self.orders.append(order)
        job = {"id": str(uuid.uuid4()), "kind": "explain", "state": "queued", "done": 0, "total": 4}
        job |= {"params": {"request": order}, "error": {"detail": "the last task died"}}
        self.jobs[job["id"]] = job
        return JSONResponse({"job": job, "runs": {}, "estimate": None}, 202)

    async def get_job(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        counts = {"explained": 5800, "scored": 5700, "insufficient": 100}
        job |= {"state": self.ends, "done": 4, "result": {"counts": counts}}
        return JSONResponse(job)

    async def retry(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]] | {"state": "queued"}
        self.retried.append(job["id"])
        return JSONResponse(job)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def explanations(server: Server) -> Generator[DemoExplanations]:
    with (
        serving(server.app()) as url,
        Client(url, "key", retry=RetryPolicy(attempts=2, first_pause=0.01)) as client,
    ):
        yield DemoExplanations(client)


def test_rules_explain_every_sae_and_the_shown_one_first(
    explanations: DemoExplanations, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    explanations.make()
    assert [order["saes"] for order in server.orders] == [
        [f"{MODEL}/{SHOWN}"], *([f"{MODEL}/{name}"] for name in SAES if name != SHOWN),
    ]  # fmt: skip
    for order in server.orders:
        assert [method["name"] for method in order["methods"]] == list(RULES)
        assert [scorer["name"] for scorer in order["scorers"]] == ["rule"]
        assert "endpoint" not in order
    said = capsys.readouterr().out
    assert "5,800 explanations, 5,700 scores, 100 features with too few examples" in said
    assert f"/v1/search?q=family+members&mode=semantic&model={MODEL}&sae={SHOWN}" in said


def test_a_second_run_orders_nothing_and_says_nothing(
    explanations: DemoExplanations, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    explanations.make()
    capsys.readouterr()
    explanations.make()
    assert len(server.orders) == len(SAES)
    assert capsys.readouterr().out == ""


def test_what_is_under_way_is_followed_and_what_failed_is_tried_again(
    explanations: DemoExplanations, server: Server
) -> None:
    explanations.make()
    running, failed, _ = server.jobs
    server.jobs[running]["state"] = "running"
    server.jobs[failed]["state"] = "failed"
    explanations.make()
    assert len(server.orders) == len(SAES)
    assert server.retried == [failed]


def test_an_llm_gets_a_few_features_and_a_budget(
    explanations: DemoExplanations, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.endpoints = ["default"]
    explanations.make()
    order = server.orders[-1]
    assert [method["name"] for method in order["methods"]] == [LLM_METHOD]
    assert order["sample"] == LLM_FEATURES
    assert order["budget"] == {"tokens": LLM_TOKENS}
    assert f"at most {LLM_TOKENS:,} tokens" in capsys.readouterr().out


def test_an_endpoint_that_came_later_is_used_in_the_next_run(
    explanations: DemoExplanations, server: Server
) -> None:
    explanations.make()
    server.endpoints = ["default"]
    explanations.make()
    assert len(server.orders) == len(SAES) + 1


def test_a_failure_is_said(explanations: DemoExplanations, server: Server) -> None:
    server.ends = "failed"
    with pytest.raises(JobFailed, match="the last task died"):
        explanations.make()
