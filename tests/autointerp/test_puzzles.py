"""A scorer that cannot tell the true explanation of a made-up feature from a false one is not believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from interpedia_autointerp.explainers import How
from interpedia_autointerp.llm import LLMAnswer, LLMRequest
from interpedia_autointerp.llm.reading import read_reply
from interpedia_autointerp.llm.wire import Reply as WireReply
from interpedia_autointerp.puzzles import CLAIMS, all_puzzles, rank, share_beaten, share_right
from interpedia_autointerp.scorers import SCORERS, Ask, LLMAsk
from tests.support.llm import calling
from tests.support.rule_judge import RuleJudge, holds
from tests.support.scripted_llm import Script

PUZZLES = all_puzzles()


@dataclass
class Direct:
    """The rule judge without a socket between: the same request in, its answer through the same reader."""

    judge: RuleJudge
    asked: int = field(default=0)

    async def answer(self, asks: Sequence[Ask]) -> list[LLMAnswer]:
        self.asked += len(asks)
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> LLMAnswer:
        assert isinstance(ask, LLMAsk)
        request = ask.request
        assert isinstance(request, LLMRequest)
        assert request.output is not None
        body = {
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "response_format": {"type": "json_schema", "json_schema": {"schema": request.output.schema}},
        }
        text = self.judge(body)
        assert isinstance(text, str)
        reading = read_reply(request, WireReply(text=text, finish_reason="stop"))
        return LLMAnswer("hash", **reading._asdict())


@pytest.mark.parametrize("puzzle", PUZZLES, ids=lambda puzzle: puzzle.name)
def test_the_true_rule_is_true_and_the_others_are_not(puzzle):
    rights: dict[str, float] = {}
    for candidate in puzzle.candidates:
        verdicts = [holds(dict(candidate.rule), w.text) == w.fires for w in puzzle.task.of("test")]
        rights[candidate.kind] = sum(verdicts) / len(verdicts)
    assert rights.pop("true") == 1.0
    assert rights
    # each is wrong often enough to be told from the truth
    assert all(right < 0.9 for right in rights.values()), rights


def test_puzzles_are_many_different_and_without_leaks():
    assert len(PUZZLES) >= 20
    assert Counter(kind.kind for p in PUZZLES for kind in p.candidates).keys() == {
        "true",
        "too_broad",
        "too_narrow",
        "wrong_context",
        "effect",
    }
    assert len({p.task.split_hash for p in PUZZLES}) == len(PUZZLES)
    for puzzle in PUZZLES:
        documents = [w.document for w in puzzle.task.windows]
        assert len(set(documents)) == len(documents)
        assert "".join(puzzle.task.windows[0].pieces) == puzzle.task.windows[0].text
    assert [p.task.split_hash for p in all_puzzles()] == [p.task.split_hash for p in PUZZLES]
    assert [p.task.split_hash for p in all_puzzles(1)] != [p.task.split_hash for p in PUZZLES]


async def _rank_all(scorer: str, judge: RuleJudge, *, local_only: bool = False):
    chosen = [puzzle for puzzle in PUZZLES if puzzle.is_local or not local_only]
    answerer = Direct(judge)
    return [
        await rank(SCORERS[scorer], puzzle, How(), answerer=answerer, with_rule=True) for puzzle in chosen
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_detection_ranks_the_truth_first_with_a_judge_that_errs_in_ten_percent(seed):
    rankings = await _rank_all("detection", RuleJudge(0.1, 0.1, seed))
    assert share_right(rankings) >= 0.95, [r for r in rankings if not r.is_right()]
    assert set(share_beaten(rankings)) == {"too_broad", "too_narrow", "wrong_context", "effect"}


async def test_fuzzing_ranks_the_truth_first_where_the_word_alone_decides():
    rankings = await _rank_all("fuzzing", RuleJudge(0.1, 0.1), local_only=True)
    assert len(rankings) >= 12
    assert share_right(rankings, CLAIMS["fuzzing"]) >= 0.95
    # the control: what it does not claim to see it does not see
    assert share_beaten(rankings)["too_broad"] < 0.8


async def test_without_hard_negatives_the_too_broad_is_not_found_out():
    # the control: random windows only, a perfect judge, and the too broad explanation is as good as the true
    ties = 0
    for puzzle in PUZZLES:
        easy = [w for w in puzzle.task.windows if w.stratum != "same_token"]
        plain = type(puzzle)(puzzle.name, puzzle.task.with_windows(easy), puzzle.candidates, puzzle.is_local)
        ranking = await rank(SCORERS["detection"], plain, How(), answerer=Direct(RuleJudge()), with_rule=True)
        assert ranking.values[0] == 1.0
        ties += not ranking.beaten()["too_broad"]
    assert ties == len(PUZZLES)


async def test_a_judge_without_a_clue_ranks_nothing():
    rankings = await _rank_all("detection", RuleJudge(0.5, 0.5))
    assert share_right(rankings) < 0.7
    assert all(r.scores[0].ci_low < 0.5 < r.scores[0].ci_high for r in rankings[:5])


async def test_through_a_real_socket_it_is_the_same(database):
    from interpedia_autointerp.scorers import LiveAnswerer

    puzzle = PUZZLES[0]
    judge = RuleJudge(0.1, 0.1)
    direct = await rank(SCORERS["detection"], puzzle, How(), answerer=Direct(judge), with_rule=True)
    script = Script(judge=judge)
    async with calling(database, script) as caller:
        live = LiveAnswerer(puzzle.task.feature, caller)
        served = await rank(SCORERS["detection"], puzzle, How(), answerer=live, with_rule=True)
    assert served.values == direct.values
    assert len(script.questions) == 4 * len(puzzle.candidates)
    # the judge sees texts under names that tell nothing, and no rule of the feature but the explanation's
    asked = json.loads(script.questions[0].body["messages"][-1]["content"])
    assert {"explanation", "windows"} == asked.keys()
    assert all(window.keys() == {"id", "text"} for window in asked["windows"])
