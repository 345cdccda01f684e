"""A dry run says what an order really takes, and hostile numbers are refused, not answered with 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interpedia_shared.db.models import Run
from interpedia_shared.db.session import Database
from tests.autointerp.test_score import write
from tests.support.autointerp import SAE
from tests.support.llm import all_rows
from tests.support.rule_judge import rule

PRICES = {"price_in": 1.0, "price_out": 1.0}


@pytest.mark.parametrize("verify", [False, True])
async def test_scores_are_estimated_for_every_explanation(service, database: Database, verify: bool):
    detection = [{"name": "detection"}]
    async with service(**PRICES) as it:
        ids = [(await write(it, {1: f"word1 {rule(any=['word1'])} {n}"}))[1] for n in range(3)]
        for n in range(2, 6):
            await write(it, {n: f"word{n} {rule(any=[f'word{n}'])} " + "and so on " * 150})
        dry = [
            (await it.post("score", explanations=some, scorers=detection, verify=verify, dry_run=True)).json()
            for some in (ids[:1], ids)
        ]
        async with it.working():
            order = await it.order("score", explanations=ids, scorers=detection, verify=verify)
            job = await it.ended(order["job"]["id"])
    one, three = (each["estimate"] for each in dry)
    assert (one["features"], three["features"], three["sampled"]) == (1, 3, 3)
    assert three["total"]["calls"] == 3 * one["total"]["calls"]
    spent = job["result"]["spent"]
    # One question may be another explanation's as well, and is then asked once. Material is estimated by its
    # quotas, which this small world cannot fill.
    assert 0 < spent["calls"] <= three["total"]["calls"]
    assert three["total"]["tokens_low"] < spent["tokens"] * 4
    assert spent["tokens"] <= three["total"]["tokens_high"]
    assert 0 < three["total"]["money_low"] < three["total"]["money_high"]


async def test_a_red_team_is_estimated_by_its_own_questions(service, database: Database):
    order: dict[str, Any] = {
        "feature": f"{SAE}/1",
        "hypothesis": f"the word word2 {rule(any=['word2'])}",
        "rounds": 2,
        "per_kind": 16,
        "texts": [{"text": "word20 word2 " * 200, "intent": "should_fire"}],
    }
    async with service(**PRICES) as it:
        dry = (await it.post("redteam", **order, dry_run=True)).json()["estimate"]["total"]
        alone = (await it.post("redteam", **{**order, "rounds": 1, "endpoint": None}, dry_run=True)).json()
        assert it.script.seen == []
        assert await all_rows(database, Run) == []
        async with it.working():
            job = await it.ended((await it.order("redteam", **order))["job"]["id"])
    spent = job["result"]["spent"]
    assert spent["calls"] <= dry["calls"]
    assert dry["tokens_low"] / 5 < spent["tokens"] <= dry["tokens_high"]
    assert spent["money"] <= dry["money_high"]
    # what the answers alone may hold
    assert dry["tokens_high"] > 2 * (3 * (200 + 16 * 90) + 200 + 32 * 90)
    assert (alone["estimate"]["total"]["calls"], alone["estimate"]["total"]["money_high"]) == (0, 0.0)


NUMBERS: list[tuple[str, dict[str, Any], int]] = [
    ("score", {"features": [f"{SAE}/3000000000"]}, 404),
    ("score", {"features": [f"{SAE}/1", f"{SAE}/3000000000"]}, 404),
    ("score", {"features": [f"{SAE}/9223372036854775807"]}, 404),
    ("score", {"explanations": [2**63]}, 422),
    ("score", {"explanations": [2**63 - 1]}, 404),
    ("score", {"explanations": [0]}, 422),
    ("redteam", {"explanation": 2**63}, 422),
    ("redteam", {"explanation": 2**63 - 1}, 404),
    ("explain", {"saes": [SAE], "budget": {"tokens": 2**63}}, 422),
    (
        "explain",
        {"saes": [SAE], "scorers": [{"name": "intervention", "params": {"strengths": ["nan"]}}]},
        422,
    ),
    (
        "explain",
        {"saes": [SAE], "scorers": [{"name": "intervention", "params": {"strengths": ["inf"]}}]},
        422,
    ),
    (
        "explain",
        {"saes": [SAE], "scorers": [{"name": "intervention", "params": {"strengths": [float("nan")]}}]},
        422,
    ),
]


async def test_numbers_beyond_all_measure_are_refused(service):
    defaults = {
        "score": {"scorers": [{"name": "rule"}]},
        "explain": {"methods": [{"name": "token-lookup"}]},
        "redteam": {},
    }
    async with service() as it:
        for path, body, status in NUMBERS:
            # by hand: JSON has no NaN, but Python's reader takes it
            content = json.dumps({**defaults[path], **body})
            headers = {"content-type": "application/json"}
            answer = await it.client.post(f"/v1/{path}", content=content, headers=headers)
            assert answer.status_code == status, (path, body, answer.text)
