"""Tokens of an explained and scored feature, beside those of five windows a call, for as many windows."""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from interpedia_autointerp.explainers import EXPLAINERS, How, Hypothesis
from interpedia_autointerp.llm import LLMRequest
from interpedia_autointerp.material import Task, Window
from interpedia_autointerp.puzzles import all_puzzles
from interpedia_autointerp.scorers import SCORERS, expected_requests, feature_cost, judge, scored
from interpedia_autointerp.scorers.cost import TokenCost, by_characters
from interpedia_shared.ids import FeatureRef
from tests.autointerp.test_puzzles import Direct
from tests.support.rule_judge import RuleJudge

CORPUS = Path(__file__).parents[2] / "examples" / "demo_corpus.jsonl.xz"
PEER = 41_000
"""Tokens of a feature with 5 windows a call: 40 excerpts to explain, 50 + 50 windows for both scorers."""
TYPICAL = Hypothesis("words about rivers, lakes and the people who live beside them, at the noun itself")
SCORED = {SCORERS["detection"]: How(), SCORERS["fuzzing"]: How()}


def _texts() -> Iterator[tuple[str, ...]]:
    """English of the demo, 32 words and marks at a time."""
    with lzma.open(CORPUS, "rt", encoding="utf-8") as lines:
        for line in lines:
            tokens = re.findall(r"\s?\w+|\s|[^\w\s]", json.loads(line)["text"][:6000])
            yield from (tuple(tokens[at : at + 32]) for at in range(0, len(tokens) - 32, 400))


def _task(firing: int, silent: int) -> Task:
    rng = random.Random(0)
    texts = _texts()
    windows: list[Window] = []
    for split, fires, count in (
        ("explain", True, 40),
        ("explain", False, 10),
        ("test", True, firing),
        ("test", False, silent),
    ):
        for _ in range(count):
            pieces = next(texts)
            values = [0.0] * len(pieces)
            if fires:
                values[23] = rng.uniform(1, 5)
            stratum = f"interval {1 + len(windows) % 5}" if fires else "random"
            name = f"w{len(windows)}"
            windows.append(Window(name, pieces, tuple(values), split, stratum, document=len(windows)))
    rng.shuffle(windows)
    return Task(FeatureRef("m", "s", 1), "ok", tuple(windows), max_activation=5.0)


@pytest.mark.parametrize(("firing", "silent"), [(50, 50), (18, 30)])
def test_a_feature_takes_less_than_half_of_what_five_windows_a_call_take(record_property, firing, silent):
    rows = feature_cost(_task(firing, silent), (EXPLAINERS["examples"], How()), SCORED, TYPICAL)
    total = sum(rows.values(), TokenCost())
    with_baseline = total + rows["detection"] + rows["fuzzing"]
    record_property("tokens", total.tokens)
    record_property("tokens with the baseline", with_baseline.tokens)
    assert total.tokens <= PEER / 2
    # with the baseline, which the other has none of, still less
    assert with_baseline.tokens <= (PEER if firing == 50 else PEER / 2)
    assert total.calls == 1 + rows["detection"].calls + rows["fuzzing"].calls
    assert rows["detection"].calls == -(-(firing + silent) // 25)


async def test_at_as_many_windows_the_interval_is_no_wider():
    widths: list[float] = []
    for puzzle in all_puzzles()[:8]:
        judged = await judge(
            SCORERS["detection"],
            puzzle.task,
            {"explanation": puzzle.true.hypothesis(with_rule=True)},
            How(),
            answerer=Direct(RuleJudge(0.15, 0.15)),
        )
        headline = scored(SCORERS["detection"], puzzle.task, judged, judge=None)[0]
        widths.append(headline.ci_high - headline.ci_low)
    # the binomial law at 48 + 48 windows and a balanced accuracy of 0.85: 2 x 1.96 x sqrt(0.85 x 0.15 / 96)
    assert sum(widths) / len(widths) == pytest.approx(0.143, abs=0.015)


def test_the_prompt_of_a_judge_is_a_small_part_of_a_question():
    task = _task(50, 50)
    for scorer, how in SCORED.items():
        requests = expected_requests(scorer, task, TYPICAL, how)
        for request in requests:
            assert isinstance(request, LLMRequest)
            system, user = (by_characters(message.content) for message in request.messages)
            assert system < 0.3 * user, scorer.name
            # one line of JSON with nothing between its parts
            assert request.messages[1].content == json.dumps(
                json.loads(request.messages[1].content), ensure_ascii=False, separators=(",", ":")
            )
