"""Scoring explanations of any origin: people's, runs', features'."""

from __future__ import annotations

import uuid

from sqlalchemy import update

from interpedia_autointerp.material.task import Task
from interpedia_autointerp.score.repository import partners
from interpedia_shared.db import models
from interpedia_shared.db.models import Explanation, ExplanationTask, Score, Verdict
from interpedia_shared.db.session import Database
from interpedia_shared.explanations import HUMAN, NewExplanation, add_explanations
from interpedia_shared.ids import FeatureRef
from tests.support.autointerp import DEAD, SAE, SCARCE, Service
from tests.support.jobs import until
from tests.support.llm import all_rows
from tests.support.rule_judge import rule


async def write(it: Service, texts: dict[int, str], account_id: int | None = None) -> dict[int, int]:
    """Explanations by a person; ids by feature."""
    account_id = account_id or it.world.account_id
    async with it.database.write() as session:
        rows = [NewExplanation(index, text, HUMAN, account_id) for index, text in texts.items()]
        ids = await add_explanations(session, it.world.sae_id, rows)
    return dict(zip(texts, ids, strict=True))


async def heads(database: Database, **wanted: object) -> list[Score]:
    rows = [row for row in await all_rows(database, Score) if row.is_headline]
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


async def test_a_persons_explanation_is_scored_beside_anothers(service, database: Database):
    async with service() as it, it.working():
        texts = {n: f"word{n} {rule(any=[f'word{n}'])}" for n in range(6)}
        texts[5] = f"any word at all {rule(always=True)}"
        ids = await write(it, texts)
        order = await it.order("score", explanations=list(ids.values()), scorers=[{"name": "detection"}])
        job = await it.ended(order["job"]["id"])
    assert job["result"]["counts"] == {"scored": 6}
    by_id = {row.explanation_id: row for row in await heads(database)}
    for index in range(5):
        row = by_id[ids[index]]
        assert row.value == 1.0
        assert row.judge == "default: scripted-1"
        assert row.split_hash
        assert row.baseline is not None
        assert row.baseline < row.value
    # the over-broad text is at chance, and its interval says so
    broad = by_id[ids[5]]
    assert broad.value == 0.5
    assert broad.ci_low is not None
    assert broad.ci_low <= 0.5
    verdicts = [row for row in await all_rows(database, Verdict) if row.explanation_id == ids[5]]
    assert {row.subject for row in verdicts} == {"explanation", "shuffled"}
    # what was judged is frozen, and its hash is the score's
    tasks: list[ExplanationTask] = list(await all_rows(database, ExplanationTask))
    assert {task.split_hash for task in tasks} == {row.split_hash for row in by_id.values()}
    assert all(Task.from_json(task.material).split_hash == task.split_hash for task in tasks)


async def test_the_first_text_of_a_person_has_a_baseline_among_the_machines(service, database: Database):
    async with service() as it, it.working():
        order = await it.order("explain", saes=[SAE], methods=[{"name": "token-lookup"}])
        await it.ended(order["job"]["id"])
        ids = await write(it, {1: f"word1 {rule(any=['word1'])}"})
        order = await it.order("score", explanations=[ids[1]], scorers=[{"name": "detection"}])
        await it.ended(order["job"]["id"])
        await write(it, {2: "word2"})
        async with it.database.read() as session:
            few = await partners(session, it.world.sae_id, HUMAN, before=10**9)
            many = await partners(session, it.world.sae_id, "token-lookup", before=10**9)
    (row,) = await heads(database)
    assert row.baseline == 0.5
    # nor is one other person's text everybody's baseline; a method with enough of its own keeps to them
    assert len(few) == len(many) == 10
    assert few[FeatureRef.parse(f"{SAE}/2")].text == "word2"
    assert many[FeatureRef.parse(f"{SAE}/2")].text != "word2"


async def test_a_text_that_is_changed_while_it_is_judged_gets_no_score(service, database: Database):
    async with service() as it, it.working():
        ids = await write(it, {n: f"word{n} {rule(any=[f'word{n}'])}" for n in range(3)})
        scorers = [{"name": "detection"}]
        first = await it.order("score", explanations=[ids[2]], scorers=scorers)
        await it.ended(first["job"]["id"])
        asked = len(it.script.questions)
        it.script.is_open = False
        order = await it.order("score", explanations=[ids[1]], scorers=scorers)

        async def is_asked() -> bool:
            return len(it.script.questions) > asked

        await until(is_asked)
        async with it.database.write() as session:
            changed = update(Explanation).where(Explanation.id == ids[1]).values(text="my shop")
            await session.execute(changed)
        it.script.is_open = True
        job = await it.ended(order["job"]["id"])
    assert job["result"]["counts"] == {"failed": 1}
    assert job["result"]["failures"] == {f"explanation {ids[1]} detection": "the text was changed meanwhile"}
    assert await heads(database, explanation_id=ids[1]) == []
    assert {row.explanation_id for row in await all_rows(database, Verdict)} == {ids[2]}


async def test_population_precision_is_below_that_of_the_balanced_task(service, database: Database):
    async with service() as it, it.working():
        ids = await write(it, {1: f"word1 or word2 {rule(any=['word1', 'word2'])}", 2: "x", 3: "y"})
        order = await it.order("score", explanations=[ids[1]], scorers=[{"name": "detection"}])
        await it.ended(order["job"]["id"])
    rows = {row.metric: row for row in await all_rows(database, Score) if row.stratum == "all"}
    precision = next(row for name, row in rows.items() if "precision" in name)
    assert precision.value is not None
    assert 0 < precision.value < 1


async def test_the_best_evidence_is_what_is_shown(service, database: Database):
    async with service() as it, it.working():
        await write(it, {1: f"all words {rule(always=True)}"})
        # a minute apart at most: the newest of two unscored ones would be shown
        true = await write(it, {n: f"word{n} {rule(any=[f'word{n}'])}" for n in (1, 2, 3)})
        order = await it.order("score", features=[f"{SAE}/1"], scorers=[{"name": "detection"}])
        await it.ended(order["job"]["id"])
    shown = {row.id for row in await all_rows(database, Explanation) if row.is_default}
    assert true[1] in shown


async def test_scarce_and_dead_features_get_a_status_and_no_number(service, database: Database):
    async with service() as it, it.working():
        ids = await write(it, {DEAD: "nothing", SCARCE: "three times"})
        order = await it.order("score", explanations=list(ids.values()), scorers=[{"name": "detection"}])
        job = await it.ended(order["job"]["id"])
    assert job["result"]["counts"] == {"dead": 1, "insufficient": 1}
    rows = await heads(database)
    assert len(rows) == 2
    assert all(row.status == "insufficient" and row.value is None for row in rows)
    assert [each for each in it.script.questions if "windows" in str(each.body)] == []


async def test_a_sentence_has_no_rule_to_run(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        ids = await write(it, {1: "words about rivers"})
        order = await it.order("score", explanations=list(ids.values()), scorers=[{"name": "rule"}])
        job = await it.ended(order["job"]["id"])
    assert job["result"]["counts"] == {"not_applicable": 1}
    assert await all_rows(database, Score) == []


async def test_what_was_well_scored_is_left_out_and_the_rest_is_done(service, database: Database):
    async with service(has_llm=False) as it, it.working():
        order = await it.order(
            "explain", features=[f"{SAE}/{n}" for n in (1, 2, 3)], methods=[{"name": "ngrams"}]
        )
        await it.ended(order["job"]["id"])
        run = order["runs"]["explain:ngrams"]
        first = await it.order("score", features=[f"{SAE}/1"], scorers=[{"name": "rule"}])
        await it.ended(first["job"]["id"])
        rest = await it.order(
            "score", run=run, scorers=[{"name": "rule"}], only_failed_of=[first["runs"]["score:rule"]]
        )
        job = await it.ended(rest["job"]["id"])
    assert job["result"]["counts"] == {"scored": 2}
    assert len(await heads(database, status="ok")) == 3


async def test_orders_of_what_is_not_there_are_refused(service, database: Database):
    async with service() as it:
        scorers = [{"name": "detection"}]
        missing = await it.post("score", explanations=[999], scorers=scorers)
        no_run = await it.post("score", run=str(uuid.uuid4()), scorers=scorers)
        two = await it.post("score", explanations=[1], features=[f"{SAE}/1"], scorers=scorers)
        ids = await write(it, {1: "mine"})
        async with it.database.write() as session:
            sae = await session.get(models.SAE, it.world.sae_id)
            assert sae is not None
            sae.visibility = "private"
        own = await it.post("score", explanations=list(ids.values()), scorers=scorers, dry_run=True)
    assert missing.status_code == 404
    assert "999" in missing.text
    assert no_run.status_code == 422
    assert two.status_code == 422
    assert own.status_code == 200
    assert own.json()["estimate"]["features"] == 1
