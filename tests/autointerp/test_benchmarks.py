"""Comparing explainers: frozen tasks, baselines, pairs, intervals over features; noise is worth nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from interpedia_autointerp.benchmarks.entries import EMPTY, SAME_TOKEN, Bench, Claim, Entry, compare, scores
from interpedia_autointerp.benchmarks.report import report
from interpedia_autointerp.benchmarks.scramble import scrambled
from interpedia_autointerp.explainers import EXPLAINERS, How, Hypothesis
from interpedia_autointerp.puzzles import all_puzzles
from interpedia_autointerp.scorers import SCORERS
from interpedia_autointerp.statistics import paired_difference
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.db.models import Explanation, ExplanationTask, Run
from interpedia_shared.db.session import Database
from interpedia_shared.ids import FeatureRef
from tests.support.autointerp import DEAD, SAE
from tests.support.llm import all_rows

RULES = [{"name": "token-lookup"}, {"name": "ngrams"}]
RULE = [{"name": "rule"}]


def rows(job: dict, scorer: str) -> dict[str, dict]:
    return {row["method"]: row for row in job["result"]["report"]["tables"][scorer]}


async def test_rules_are_compared_beside_their_baselines(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        order = await it.order("benchmarks", saes=[SAE], methods=RULES, scorers=RULE)
        job = await it.ended(order["job"]["id"])
    assert job["state"] == "succeeded", job
    assert job["result"]["counts"] == {"compared": 10, "insufficient": 1}
    found = rows(job, "rule")
    real, noise, empty = found["token-lookup"], found["scrambled:token-lookup"], found[EMPTY]
    assert real["n"] == noise["n"] == 10
    assert real["mean"] == 1.0
    # a randomised SAE scores visibly at its baseline, far from the real one
    assert noise["ci_low"] <= 0.5 + 0.1
    assert abs(noise["mean"] - 0.5) < 0.12
    assert noise["ci_high"] < real["ci_low"]
    assert real["shuffled"] < 0.65
    assert empty["mean"] == pytest.approx(0.5)
    assert real["explain_tokens"] == real["score_tokens"] == 0
    # nothing of it is shown on the features, and the tasks are kept
    assert await all_rows(database, Explanation) == []
    assert len(await all_rows(database, ExplanationTask)) >= 10
    runs = await all_rows(database, Run)
    assert {run.kind for run in runs} == {"benchmark"}


async def test_the_same_benchmark_again_gives_the_same_numbers(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        jobs = [await it.order("benchmarks", saes=[SAE], methods=RULES, scorers=RULE, seed=3) for _ in "ab"]
        first, second = [(await it.ended(each["job"]["id"]))["result"]["report"] for each in jobs]
    assert first == second


async def test_with_an_llm_the_cost_stands_beside_the_score(service, database: Database):
    async with service() as it, it.working():
        order = await it.order(
            "benchmarks",
            features=[f"{SAE}/{n}" for n in range(6)],
            methods=[{"name": "token-lookup"}, {"name": "examples"}],
            scorers=[{"name": "detection"}],
        )
        job = await it.ended(order["job"]["id"])
        run = (await it.client.get(f"/v1/runs/{order['runs']['benchmark:examples']}")).json()
    found = rows(job, "detection")
    examples = found["examples"]
    assert examples["mean"] == 1.0
    assert examples["explain_tokens"] > 100
    assert examples["score_tokens"] > 100
    assert examples["tokens_per_point"] == pytest.approx(
        (examples["explain_tokens"] + examples["score_tokens"]) / 50
    )
    assert found[EMPTY]["mean"] < 0.6
    assert run["spent"]["paid_calls"] > 0
    differences = {
        (each["left"], each["right"]): each for each in job["result"]["report"]["differences"]["detection"]
    }
    against_nothing = next(each for pair, each in differences.items() if set(pair) == {"examples", EMPTY})
    assert abs(against_nothing["difference"]) > 0.3
    assert against_nothing["n"] == 6
    assert against_nothing["p"] <= against_nothing["p_holm"] <= 1


async def test_what_cannot_be_compared_is_refused(service, database: Database):
    async with service(has_llm=False) as it:
        one = await it.post("benchmarks", features=[f"{SAE}/1"], methods=RULES, scorers=RULE)
        no_llm = await it.post("benchmarks", saes=[SAE], methods=[{"name": "examples"}], scorers=RULE)
        dry = await it.post("benchmarks", saes=[SAE], methods=RULES, scorers=RULE, dry_run=True)
        async with it.working():
            order = await it.order(
                "benchmarks", features=[f"{SAE}/{DEAD}", f"{SAE}/1"], methods=RULES, scorers=RULE
            )
            job = await it.ended(order["job"]["id"])
    assert one.status_code == 422
    assert "1 features" in one.text
    assert no_llm.status_code == 404
    assert dry.json()["estimate"]["total"]["calls"] == 0
    assert job["result"]["counts"] == {"compared": 1, "dead": 1}
    assert rows(job, "rule")["token-lookup"]["n"] == 1


# ---- the parts


async def tasks_of(service, indices):
    async with service(has_llm=False) as it, it.working():
        workshop = Workshop.open(it.settings, it.database, it.llm)
        try:
            found = await workshop.shelf.tasks(it.world.version_id, indices, verify=False)
        finally:
            await workshop.aclose()
    return list(found.values())


async def test_the_control_keeps_texts_and_numbers_but_not_their_bond(service):
    for task in await tasks_of(service, [1, 2, 3]):
        control = scrambled(task)
        assert control == scrambled(task)
        assert control.feature == task.feature
        for split in ("explain", "validate", "test"):
            ours, theirs = control.of(split), task.of(split)
            assert sorted("".join(window.pieces) for window in ours) == sorted(
                "".join(window.pieces) for window in theirs
            )
            assert sorted(window.max for window in ours) == sorted(window.max for window in theirs)
            assert sum(w.fires for w in ours) == sum(w.fires for w in theirs)
        peaks = {window.pieces[window.peak] for window in control.of("test", fires=True)}
        assert len(peaks) > 3


async def test_the_hard_baseline_is_another_feature_with_the_same_token(service):
    tasks = await tasks_of(service, [1, 2])
    how = How(EXPLAINERS["token-lookup"].params_model())
    bench = Bench(
        explainers=[(EXPLAINERS["token-lookup"], how)],
        scorers=[(SCORERS["rule"], How(SCORERS["rule"].params_model()))],
    )
    entries = await compare(bench, tasks)
    assert [entry for entry in entries if entry.method == SAME_TOKEN] == []
    twin = replace(tasks[0], feature=FeatureRef("tiny", "1-res", 77))
    entries = await compare(bench, [*tasks, twin])
    found = {entry.feature: entry for entry in entries if entry.method == SAME_TOKEN}
    assert set(found) == {f"{SAE}/1", f"{SAE}/77"}
    assert all(entry.value == 1.0 for entry in found.values())


def entry(
    feature: int, method: str, value: float | None, status: str = "ok", scorer: str = "detection"
) -> Entry:
    return Entry(
        f"m/s/{feature}",
        method,
        scorer,
        status,
        metric="balanced_accuracy" if value else "",
        value=value,
    )


@pytest.mark.parametrize("scorer", ["simulation", "intervention"])
def test_a_failure_is_worth_nothing_where_chance_is_0(scorer):
    entries = [entry(n, "a", 0.4 if n < 2 else None, "ok" if n < 2 else "failed", scorer) for n in range(4)]
    (row,) = report(entries)["tables"][scorer]
    assert row["mean"] == pytest.approx(0.2)


async def test_to_claim_no_pattern_is_chance_also_where_rules_are_run():
    task = all_puzzles()[0].task
    claims = [
        Claim(task, "silent", Hypothesis("No pattern found.", no_pattern=True)),
        Claim(task, "prose", Hypothesis("names of fruit")),
    ]
    silent, prose = await scores(Bench([], [(SCORERS["rule"], How())]), claims)
    assert (silent.status, silent.value, silent.text) == ("ok", 0.5, "No pattern found.")
    assert prose.status == "not_applicable"


def test_a_method_cannot_gain_by_failing():
    good = [entry(n, "modest", 0.7) for n in range(10)]
    picky = [entry(n, "picky", 0.9 if n < 3 else None, "ok" if n < 3 else "failed") for n in range(10)]
    table = {row["method"]: row for row in report([*good, *picky])["tables"]["detection"]}
    assert table["picky"]["mean"] == pytest.approx(0.62)
    assert table["picky"]["failed"] == 7
    assert table["modest"]["mean"] == pytest.approx(0.7)


def test_differences_are_paired_by_feature():
    chance = random.Random(1)
    hard = [chance.random() * 0.4 for _ in range(30)]
    left = [entry(n, "a", 0.5 + hard[n]) for n in range(30)]
    right = [entry(n, "b", 0.48 + hard[n]) for n in range(30)]
    found = report([*left, *right])
    (difference,) = found["differences"]["detection"]
    theirs = paired_difference([e.value for e in left], [e.value for e in right])
    assert difference["difference"] == pytest.approx(0.02) == pytest.approx(theirs.difference)
    # unpaired the intervals overlap; paired the small difference is plain
    table = {row["method"]: row for row in found["tables"]["detection"]}
    assert table["b"]["ci_high"] > table["a"]["ci_low"]
    assert difference["ci_low"] > 0
    assert difference["p"] < 0.001


def test_intervals_grow_narrower_with_features():
    chance = random.Random(0)
    values = [chance.random() for _ in range(640)]
    widths = []
    for n in (10, 80, 640):
        (row,) = report([entry(k, "a", values[k]) for k in range(n)])["tables"]["detection"]
        widths.append(row["ci_high"] - row["ci_low"])
    assert all(more > less for more, less in pairwise(widths))


def test_what_has_no_material_is_left_out_and_said():
    entries = [entry(n, "a", 0.8) for n in range(4)]
    entries += [entry(9, "a", None, "insufficient"), entry(8, "a", None, "not_applicable")]
    (row,) = report(entries)["tables"]["detection"]
    assert row["n"] == 4
    assert row["left_out"] == 2
    assert row["mean"] == pytest.approx(0.8)
