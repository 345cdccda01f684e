"""The guide's examples are bodies that the API takes, and its tables name what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from interpedia_autointerp.explainers import EXPLAINERS
from interpedia_autointerp.methods.choices import explainer_of, scorer_of
from interpedia_autointerp.scorers import SCORERS
from interpedia_shared.contracts import autointerp as contract
from tests.support.doc_examples import read_guide

PATH = Path(__file__).parents[2] / "docs" / "explanations.md"
GUIDE = read_guide(PATH)
BODIES = {
    "/v1/explain": contract.ExplainRequest,
    "/v1/score": contract.ScoreRequest,
    "/v1/redteam": contract.RedTeamRequest,
    "/v1/benchmarks": contract.BenchmarkRequest,
}
ORDERS = [each for each in GUIDE.requests if each.method == "POST"]


@pytest.mark.parametrize("example", ORDERS, ids=lambda example: example.path)
def test_orders_are_valid_and_name_methods_that_exist(example):
    order = BODIES[example.path].model_validate(example.body)
    assert example.needs_key
    for choice in getattr(order, "methods", ()):
        explainer_of(choice)
    for choice in getattr(order, "scorers", ()):
        scorer_of(choice)


def test_every_kind_of_order_is_shown():
    assert {example.path for example in ORDERS} == set(BODIES)


def test_all_methods_are_in_the_tables():
    text = PATH.read_text(encoding="utf-8")
    assert [name for name in (*EXPLAINERS, *SCORERS) if f"`{name}`" not in text] == []


def test_python_blocks_are_python():
    for block in GUIDE.python:
        compile(block, "guide", "exec")
