"""Explaining and scoring, from the request to the rows, over sockets."""

from __future__ import annotations

import json

import pytest

from interpedia_shared.db import models
from interpedia_shared.db.models import Explanation, LLMCall, Run, Score, Verdict
from interpedia_shared.db.session import Database
from tests.support.autointerp import DEAD, SAE, SCARCE
from tests.support.factories import make_account
from tests.support.llm import all_rows

RULES = {"methods": [{"name": "token-lookup"}, {"name": "ngrams"}], "scorers": [{"name": "rule"}]}
PROSE = {"methods": [{"name": "examples"}], "scorers": [{"name": "detection"}]}


async def test_features_are_explained_and_scored_without_an_llm(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        accepted = await it.order("explain", saes=[SAE], **RULES)
        job = await it.ended(accepted["job"]["id"])
    assert job["state"] == "succeeded", job
    explanations: list[Explanation] = list(await all_rows(database, Explanation))
    by_feature = {(row.feature_idx, row.method): row for row in explanations}
    # the dead one is no target of a whole SAE; the scarce one is material for nobody
    assert {index for index, _ in by_feature} == set(range(10))
    assert "word3" in by_feature[3, "token-lookup"].text
    assert job["result"]["counts"] == {"explained": 20, "insufficient": 1, "scored": 20}
    assert job["done"] == job["total"]
    scores: list[Score] = list(await all_rows(database, Score))
    heads = [row for row in scores if row.is_headline]
    assert len(heads) == 20
    for row in heads:
        assert row.status == "ok"
        assert row.value == 1.0
        assert row.n > 10
        assert row.split_hash
        assert row.ci_low is not None
        assert row.ci_low < 1.0
        assert row.baseline is not None
        assert row.baseline < 0.7
    assert {row.feature_idx for row in explanations if row.is_default} == set(range(10))
    assert await all_rows(database, LLMCall) == []


async def test_with_the_llm_every_number_has_its_evidence(service, database: Database):
    async with service() as it, it.working():
        accepted = await it.order("explain", features=[f"{SAE}/{n}" for n in (1, 2, 3)], **PROSE)
        job = await it.ended(accepted["job"]["id"])
        run = (await it.client.get(f"/v1/runs/{accepted['runs']['explain:examples']}")).json()
    assert job["state"] == "succeeded", job
    explanations: list[Explanation] = list(await all_rows(database, Explanation))
    assert {row.feature_idx: row.text.split(" [[")[0] for row in explanations} == {
        n: f"the word word{n}" for n in (1, 2, 3)
    }
    heads = [row for row in await all_rows(database, Score) if row.is_headline]
    assert all(row.value == 1.0 and row.judge == "default: scripted-1" for row in heads)
    # the other word stands in a few of the windows by chance
    assert all(0.35 <= row.baseline <= 0.65 for row in heads)
    verdicts: list[Verdict] = list(await all_rows(database, Verdict))
    assert {row.subject for row in verdicts} == {"explanation", "shuffled"}
    # near misses were looked for on the live model
    assert it.live.requests > 0
    assert {"same_token", "random"} & {row.stratum for row in verdicts}
    assert run["spent"]["paid_calls"] == 3
    assert run["spent"]["tokens_in"] > 100
    assert run["provenance"]["prompt"].startswith("explain-examples@")
    assert job["result"]["spent"]["tokens"] >= run["spent"]["tokens_in"]


async def test_the_same_order_again_pays_for_nothing(service, database: Database):
    async with service() as it, it.working():
        first = await it.order("explain", features=[f"{SAE}/4", f"{SAE}/5"], **PROSE)
        await it.ended(first["job"]["id"])
        n_questions = len(it.script.questions)
        second = await it.order("explain", features=[f"{SAE}/4", f"{SAE}/5"], **PROSE)
        job = await it.ended(second["job"]["id"])
        assert len(it.script.questions) == n_questions
    assert job["result"]["spent"]["tokens"] == 0
    assert job["result"]["spent"]["stored_answers_used"] > 0
    assert job["result"]["counts"]["explained"] == 2


async def test_a_dry_run_calls_nothing_and_brackets_the_cost(service, database: Database):
    async with service() as it:
        order = {"features": [f"{SAE}/{n}" for n in range(6)], **PROSE}
        answer = await it.post("explain", **order, verify=False, dry_run=True)
        assert answer.status_code == 200
        estimate = answer.json()["estimate"]
        assert answer.json()["job"] is None
        assert it.script.seen == []
        assert await all_rows(database, Run) == []
        async with it.working():
            job = await it.ended((await it.order("explain", **order, verify=False))["job"]["id"])
    assert estimate["features"] == 6
    spent = job["result"]["spent"]
    assert 0 < estimate["total"]["tokens_low"] < estimate["total"]["tokens_high"]
    assert spent["calls"] == estimate["total"]["calls"]
    assert spent["tokens"] <= estimate["total"]["tokens_high"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"features": [f"{SAE}/999"], **RULES}, 404, "999"),
        ({"features": ["tiny/none/1"], **RULES}, 404, "none"),
        ({"features": [f"{SAE}/-1"], **RULES}, 422, "index"),
        ({"features": [f"{SAE}/1"], "methods": [{"name": "magic"}]}, 422, "token-lookup"),
        ({"features": [f"{SAE}/1"], "methods": [{"name": "examples", "params": {"n": 1}}]}, 422, "params/n"),
        ({"features": [f"{SAE}/1"], "methods": [{"name": "examples"}], "endpoint": "other"}, 404, "other"),
        (
            {"features": [f"{SAE}/1"], "methods": [{"name": "examples"}], "budget": {"tokens": 0}},
            422,
            "0 allows no call",
        ),
        (
            {"features": [f"{SAE}/1"], "methods": [{"name": "examples"}], "budget": {"money": 1}},
            422,
            "no prices",
        ),
        ({"features": [], **RULES}, 422, "features or saes"),
        (
            {"features": [f"{SAE}/1"], "methods": [{"name": "ngrams"}, {"name": "ngrams"}]},
            422,
            "named twice",
        ),
    ],
)
async def test_bad_orders_are_refused_with_the_fact(service, body, status, word):
    async with service() as it:
        answer = await it.post("explain", **body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in json.dumps(answer.json())


async def test_without_an_endpoint_the_llm_methods_say_so(service):
    async with service(has_llm=False) as it:
        answer = await it.post("explain", features=[f"{SAE}/1"], **PROSE)
        assert answer.status_code == 404
        assert "INTERPEDIA_LLM__BASE_URL" in answer.text
        assert (await it.client.get("/v1/endpoints")).json() == {"items": []}


async def test_a_method_that_needs_more_than_the_endpoint_has_is_refused(service, database: Database):
    async with service() as it:
        it.script.prompt_logprobs = None
        it.script.logprobs = 0
        answer = await it.post(
            "explain",
            features=[f"{SAE}/1"],
            methods=[{"name": "ngrams"}],
            scorers=[{"name": "simulation"}],
        )
        shown = (await it.client.get("/v1/endpoints")).json()["items"][0]
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("missing-capability")
    assert shown["capabilities"]["prompt_logprobs"] is None
    assert "api_key" not in json.dumps(shown)


async def test_dead_and_scarce_features_are_no_scores(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        accepted = await it.order("explain", features=[f"{SAE}/{DEAD}", f"{SAE}/{SCARCE}"], **RULES)
        job = await it.ended(accepted["job"]["id"])
    assert job["result"]["counts"] == {"dead": 1, "insufficient": 1}
    assert await all_rows(database, Explanation) == []
    assert await all_rows(database, Score) == []


async def test_orders_need_a_key_and_are_idempotent(service, database: Database):
    async with service(has_llm=False) as it:
        body = {"features": [f"{SAE}/1"], **RULES}
        nobody = await it.client.post("/v1/explain", json=body, headers={"authorization": "Bearer ip_x"})
        assert nobody.status_code == 401
        headers = {"idempotency-key": "once"}
        first = await it.client.post("/v1/explain", json=body, headers=headers)
        again = await it.client.post("/v1/explain", json=body, headers=headers)
        other = await it.client.post("/v1/explain", json={**body, "seed": 1}, headers=headers)
    assert first.json() == again.json()
    assert other.status_code == 409
    assert len(await all_rows(database, Run)) == 3


async def test_methods_tell_their_parameters(service):
    async with service(has_llm=False) as it:
        items = (await it.client.get("/v1/methods")).json()["items"]
    by_name = {each["name"]: each for each in items}
    assert by_name["examples"]["prompt"].startswith("explain-examples@")
    assert by_name["rule"]["needs"] == ["rule"]
    assert "n_examples" in by_name["examples"]["params"]["properties"]


async def test_work_on_a_private_sae_is_nobody_elses_to_see(service, database: Database):
    async with service(has_llm=False) as it:
        async with it.database.write() as session:
            sae = await session.get(models.SAE, it.world.sae_id)
            assert sae is not None
            sae.visibility = "private"
            _, other = await make_account(session, "somebody-else", ["publish"])
        stranger = {"authorization": f"Bearer {other}"}
        order = {"features": [f"{SAE}/1"], **RULES}
        refused = await it.client.post("/v1/explain", json=order, headers=stranger)
        accepted = await it.order("explain", **order)
        path = f"/v1/runs/{accepted['runs']['explain:ngrams']}"
        own, others = await it.client.get(path), await it.client.get(path, headers=stranger)
    assert refused.status_code == 404
    assert accepted["job"]["params"]["is_private"] is True
    assert own.status_code == 200
    assert others.status_code == 404
