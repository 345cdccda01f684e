"""Putting hypotheses to the test: with an LLM's texts, with one's own alone, and again after a revision."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sqlalchemy import update

from interpedia_autointerp.redteam.attempt import Attempt
from interpedia_autointerp.redteam.verdict import counterexamples, score_values, verdict
from interpedia_shared.db.models import Explanation, LLMCall, RedTeamText, Score
from interpedia_shared.db.session import Database
from tests.support.autointerp import DEAD, SAE, SCARCE, Author
from tests.support.jobs import until
from tests.support.llm import all_rows
from tests.support.rule_judge import last_json, rule
from tests.support.scripted_llm import Body, Reply, Script, refusal

TRUE = f"the word word1 {rule(any=['word1'])}"
FALSE = f"the word word2 {rule(any=['word2'])}"
FEATURE = f"{SAE}/1"
OWN = [
    {"text": f"word20 word{21 + n} word1 word30", "intent": "should_fire", "pair": n} for n in range(6)
] + [{"text": f"word20 word{21 + n} word9 word30", "intent": "should_not_fire", "pair": n} for n in range(6)]


async def test_a_true_hypothesis_survives(service, database: Database):
    async with service() as it, it.working():
        order = await it.order("redteam", feature=FEATURE, hypothesis=TRUE, per_kind=8)
        job = await it.ended(order["job"]["id"])
        run = (await it.client.get(f"/v1/runs/{order['runs']['redteam:redteam']}")).json()
    assert job["state"] == "succeeded", job
    (found,) = job["result"]["report"]["rounds"]
    assert found["outcome"] == "survived"
    assert found["refuted_by"] == []
    assert found["signed_auroc"]["value"] > 0.8
    assert found["signed_auroc"]["low"] > 0.5
    assert found["paired_win_rate"]["value"] == 1.0
    assert found["p_pairs"] < 0.01
    assert found["trap_rate"]["value"] == 0.0
    assert found["hit_rates"]["0"]["value"] == 1.0
    # texts, what the feature did on each, and controls that are windows of the corpus
    assert {text["author"] for text in run["texts"]} == {"llm", "corpus"}
    fired = [text for text in run["texts"] if text["intent"] == "should_fire"]
    assert all(text["max_activation"] > 0 and "word1" in "".join(text["tokens"]) for text in fired)
    assert run["spent"]["paid_calls"] >= 5
    rows = {row.metric: row for row in await all_rows(database, Score)}
    assert {row.scorer for row in rows.values()} == {"redteam"}
    assert rows["signed_auroc"].value == found["signed_auroc"]["value"]
    assert rows["signed_auroc"].baseline == 0.0
    assert not any(row.is_headline for row in rows.values())


async def test_a_false_hypothesis_is_refuted_revised_and_the_revision_meets_other_texts(
    service, database: Database
):
    # the person's texts show the LLM on which word the feature really fires
    shown = [{"text": f"word4{n} word1", "intent": "should_not_fire"} for n in range(5)]
    async with service() as it, it.working():
        order = await it.order(
            "redteam", feature=FEATURE, hypothesis=FALSE, texts=shown, rounds=2, per_kind=6
        )
        job = await it.ended(order["job"]["id"])
    first, second = job["result"]["report"]["rounds"]
    assert first["outcome"] == "refuted"
    assert len(first["refuted_by"]) == 3
    assert first["paired_win_rate"]["value"] <= 0.5
    assert second["text"].startswith("the word word1 ")
    assert second["outcome"] == "survived"
    texts: list[RedTeamText] = list(await all_rows(database, RedTeamText))
    old = {row.text for row in texts if row.round == 1 and row.author != "corpus"}
    new = {row.text for row in texts if row.round == 2 and row.author != "corpus"}
    assert new
    assert not old & new
    by_method = {row.method: row for row in await all_rows(database, Explanation)}
    assert by_method["redteam-revision"].hypothesis["parent"] == by_method["human"].id
    assert by_method["human"].is_default, "a red-team leaves it alone"


@pytest.mark.parametrize(("hypothesis", "outcome"), [("word1", "survived"), ("word9", "refuted")])
async def test_ones_own_texts_are_enough(service, database: Database, hypothesis, outcome):
    other = {"should_fire": "should_not_fire", "should_not_fire": "should_fire"}
    texts = OWN if outcome == "survived" else [{**text, "intent": other[text["intent"]]} for text in OWN]
    async with service(has_llm=False) as it, it.working():
        order = await it.order("redteam", feature=FEATURE, hypothesis=hypothesis, texts=texts, endpoint=None)
        job = await it.ended(order["job"]["id"])
        # the same hypothesis has to face the same texts again; what they are meant to do is not another's
        tried: dict[str, int] = {}
        for text in (hypothesis, "another"):
            again = await it.order(
                "redteam", feature=FEATURE, hypothesis=text, texts=OWN[:1], endpoint=None, seed=1
            )
            report = (await it.ended(again["job"]["id"]))["result"]["report"]["rounds"][0]
            tried[text] = report["hit_rates"]["0"]["n"] + report["trap_rate"]["n"]
    found = job["result"]["report"]["rounds"][0]
    wins = found["paired_win_rate"]
    assert wins["n"] == 6
    assert wins["value"] == (1.0 if outcome == "survived" else 0.0)
    assert found["p_pairs"] == pytest.approx(stats.binomtest(0, 6, 0.5).pvalue)
    assert found["outcome"] in {outcome, "undecided"}
    assert tried == {hypothesis: 12, "another": 1}
    assert await all_rows(database, LLMCall) == []
    assert {row.author for row in await all_rows(database, RedTeamText)} >= {"corpus"}


async def test_a_red_team_leaves_what_is_shown_alone(service, database: Database):
    texts = [{"text": f"word50 word59 word1 word5{n}", "intent": "should_fire"} for n in range(6)]
    async with service(has_llm=False) as it, it.working():
        order = await it.order(
            "explain", saes=[SAE], methods=[{"name": "token-lookup"}], scorers=[{"name": "rule"}]
        )
        await it.ended(order["job"]["id"])
        order = await it.order(
            "redteam", feature=FEATURE, hypothesis="something wrong", texts=texts, endpoint=None
        )
        job = await it.ended(order["job"]["id"])
    assert job["result"]["report"]["rounds"][0]["signed_auroc"]["value"] > 0.8
    shown = [row for row in await all_rows(database, Explanation) if row.feature_idx == 1 and row.is_default]
    assert [row.method for row in shown] == ["token-lookup"]
    by_text = {row.text: row for row in await all_rows(database, Explanation)}
    assert by_text["something wrong"].best_score is None


async def test_a_feature_with_too_few_examples_gets_no_numbers(service, database: Database):
    texts = [{"text": f"word50 word5{n} word{SCARCE}", "intent": "should_fire"} for n in range(6)]
    async with service(has_llm=False) as it, it.working():
        order = await it.order(
            "redteam", feature=f"{SAE}/{SCARCE}", hypothesis="x", texts=texts, endpoint=None
        )
        job = await it.ended(order["job"]["id"])
    assert job["result"]["report"]["rounds"][0]["outcome"] == "insufficient"
    rows = await all_rows(database, Score)
    assert len(rows) == 4
    assert all((row.status, row.value, row.ci_low) == ("insufficient", None, None) for row in rows)
    assert {row.details["outcome"] for row in rows} == {"insufficient"}


async def test_a_hypothesis_that_is_changed_while_it_is_tested_gets_no_numbers(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        it.live.is_open = False
        order = await it.order("redteam", feature=FEATURE, hypothesis="word1", texts=OWN, endpoint=None)

        async def is_asked() -> bool:
            return it.live.requests > 0

        await until(is_asked)
        async with database.write() as session:
            await session.execute(update(Explanation).values(text="something else"))
        it.live.is_open = True
        job = await it.ended(order["job"]["id"])
    assert job["result"]["counts"] == {"failed": 1}
    assert job["result"]["failures"] == {"round 1": "the text was changed meanwhile"}
    assert await all_rows(database, Score) == []
    assert await all_rows(database, RedTeamText) == [], "they were written against the old text"


async def test_a_text_that_cannot_run_fails_alone(service, database: Database):
    bad = [{"text": "too long for the model", "intent": "should_fire"}]
    async with service(has_llm=False) as it, it.working():
        order = await it.order("redteam", feature=FEATURE, hypothesis="word1", texts=OWN + bad, endpoint=None)
        job = await it.ended(order["job"]["id"])
    found = job["result"]["report"]["rounds"][0]
    assert found["failed_texts"] == 1
    assert found["paired_win_rate"]["n"] == 6


async def test_a_writer_that_misses_the_point_is_no_evidence(service, database: Database):
    """Texts that a judge finds to be off the hypothesis count neither way."""

    def author(body: Body) -> Reply | str:
        data = last_json(body["messages"][-1]["content"]) or {}
        found = Author()(body)
        if "claim" in data and "pairs of texts" not in body["messages"][0]["content"]:
            return str(found).replace("word1 ", "word7 ")
        return found

    async with service(script=Script(judge=author)) as it, it.working():
        order = await it.order("redteam", feature=FEATURE, hypothesis=TRUE, per_kind=4)
        found = (await it.ended(order["job"]["id"]))["result"]["report"]["rounds"][0]
    assert found["off_intent"] >= 4
    assert found["outcome"] != "refuted"


async def test_attacks_that_fail_are_said(service, database: Database):
    async with service() as it, it.working():
        order = await it.order("redteam", feature=FEATURE, hypothesis=TRUE, per_kind=4, texts=OWN)
        it.script.always = refusal()
        job = await it.ended(order["job"]["id"])
    found = job["result"]["report"]["rounds"][0]
    assert len(found["failed_kinds"]) == 4
    assert found["paired_win_rate"]["n"] == 6
    assert job["result"]["counts"]["failed"] == 4


async def test_a_live_model_that_is_busy_is_waited_for(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        it.live.busy = 3
        order = await it.order("redteam", feature=FEATURE, hypothesis="word1", texts=OWN, endpoint=None)
        job = await it.ended(order["job"]["id"])
    assert job["state"] == "succeeded"
    assert it.live.requests > 3


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"feature": FEATURE, "hypothesis": "x" * 100_000}, 422, "2000"),
        ({"feature": FEATURE, "hypothesis": " "}, 422, "hypothesis"),
        ({"feature": FEATURE, "hypothesis": "a\u202eb", "endpoint": None, "texts": OWN}, 422, "hypothesis"),
        ({"feature": f"{SAE}/77", "hypothesis": "x"}, 404, "77"),
        ({"explanation": 5}, 404, "5"),
        ({"feature": FEATURE}, 422, "together"),
        ({"feature": FEATURE, "hypothesis": "x", "endpoint": None}, 422, "texts"),
        ({"feature": FEATURE, "hypothesis": "x", "endpoint": None, "texts": OWN, "rounds": 2}, 422, "rounds"),
        ({"feature": FEATURE, "hypothesis": "x", "budget": {"tokens": 0}}, 422, "0 allows no call"),
        ({"feature": FEATURE, "hypothesis": "x", "texts": [{"text": "", "intent": "control"}]}, 422, "text"),
    ],
)
async def test_bad_orders_are_refused_with_the_fact(service, body, status, word):
    async with service() as it:
        answer = await it.post("redteam", **body)
    assert answer.status_code == status, answer.text
    assert word in json.dumps(answer.json())
    assert len(answer.text) < 5_000


async def test_a_dead_feature_has_no_verdict(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        order = await it.order(
            "redteam", feature=f"{SAE}/{DEAD}", hypothesis="word1", texts=OWN, endpoint=None
        )
        job = await it.ended(order["job"]["id"])
    assert job["result"]["report"]["status"] == "dead"
    assert job["result"]["report"]["rounds"] == []
    assert await all_rows(database, Score) == []


# ---- the verdict itself


def attempt(intent, value, *, quantile=None, pair=None, text="t", kind="own"):
    share = min(value / 10, 1.0) if quantile is None else quantile
    return Attempt(text, intent, kind, "me", pair, state="ok", max=value, quantile=share)


VALUES = st.lists(st.integers(0, 10).map(float), min_size=5, max_size=20)


@given(fire=VALUES, control=VALUES)
def test_signed_auroc_is_twice_scipys_less_one(fire, control):
    attempts = [attempt("should_fire", value) for value in fire]
    attempts += [attempt("control", value) for value in control]
    theirs = stats.mannwhitneyu(fire, control).statistic / (len(fire) * len(control))
    found = verdict(attempts).signed_auroc
    assert found.value == pytest.approx(2 * theirs - 1)
    assert -1.0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1.0


@given(wins=st.integers(0, 12), losses=st.integers(0, 12), ties=st.integers(0, 5))
def test_pairs_are_tested_by_their_signs(wins, losses, ties):
    sides = [(5.0, 1.0)] * wins + [(1.0, 5.0)] * losses + [(2.0, 2.0)] * ties
    attempts = [attempt("should_fire", one, pair=n) for n, (one, _) in enumerate(sides)]
    attempts += [attempt("should_not_fire", two, pair=n) for n, (_, two) in enumerate(sides)]
    found = verdict(attempts)
    if sides:
        assert found.pairs.value == pytest.approx((wins + ties / 2) / len(sides))
        expected = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
        assert found.p == pytest.approx(expected)
    else:
        assert found.p is None
        assert found.pairs.value is None


def test_hit_rates_are_at_quantiles_of_the_features_own_examples():
    attempts = [attempt("should_fire", value) for value in (0.0, 1.0, 3.0, 6.0)]
    hits = verdict(attempts).hits
    assert [hits[name].value for name in ("0", "0.25", "0.5")] == [0.75, 0.5, 0.25]


def test_the_three_strongest_counterexamples():
    attempts = [attempt("should_fire", 0.0, text="silent"), attempt("should_fire", 2.0, text="faint")]
    attempts += [attempt("should_not_fire", 9.0, text="loud"), attempt("should_not_fire", 4.0, text="heard")]
    attempts += [attempt("should_fire", 9.0, text="right"), attempt("control", 9.0, text="control")]
    assert [each.text for each in counterexamples(attempts)] == ["silent", "loud", "faint"]


def test_what_did_not_run_or_was_off_intent_counts_for_nothing():
    good = [attempt("should_fire", 8.0, text=str(n)) for n in range(6)]
    off = [replace(attempt("should_fire", 0.0, text=f"off{n}"), state="off_intent") for n in range(6)]
    found = verdict([*good, *off, replace(off[0], state="failed")])
    assert found.hits["0"].value == 1.0
    assert found.n_off_intent == 6
    assert found.n_failed == 1
    assert all(row.n_abstained == 6 and row.n_failed == 1 for row in score_values(found, judge=None))


@pytest.mark.parametrize(("n_fire", "n_controls"), [(1, 1), (1, 40), (4, 40), (40, 4)])
def test_few_texts_are_no_score(n_fire, n_controls):
    attempts = [attempt("should_fire", 5.0)] * n_fire + [attempt("control", 0.0)] * n_controls
    found = verdict(attempts)
    assert (found.signed_auroc.value, found.signed_auroc.n) == (None, n_fire + n_controls)
    rows = {row.metric: row for row in score_values(found, judge=None)}
    assert (rows["signed_auroc"].status, rows["signed_auroc"].value) == ("insufficient", None)
    if n_fire < 5:
        assert all(row.status == "insufficient" and row.value is None for row in rows.values())
