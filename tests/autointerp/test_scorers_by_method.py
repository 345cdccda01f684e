"""Scorers that predict, order or steer: each against a stand-in whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from interpedia_autointerp.explainers import How, Hypothesis
from interpedia_autointerp.llm import LLMAnswer, TokenLogprob
from interpedia_autointerp.material import Task, Window
from interpedia_autointerp.puzzles import all_puzzles
from interpedia_autointerp.scorers import (
    SCORERS,
    Basis,
    LiveAnswerer,
    ScoreValue,
    SteerAsk,
    expected_requests,
    judge,
    scored,
)
from interpedia_autointerp.scorers.logprobs import expected_digit, yes_probability
from interpedia_autointerp.scorers.offsets import NotAligned, token_at, tokens_from
from interpedia_autointerp.scorers.rule import best_threshold
from interpedia_autointerp.scorers.simulation import simulation_text
from interpedia_shared.problems import Unavailable
from tests.autointerp.test_puzzles import Direct
from tests.support.llm import calling
from tests.support.made_up import BagOfWords
from tests.support.rule_judge import RuleJudge
from tests.support.scripted_llm import Script
from tests.support.scripted_llm import scored as made_up_logprobs

PUZZLES = all_puzzles()
FRUIT = PUZZLES[0]
TRUE = FRUIT.true.hypothesis(with_rule=True)
OTHER = PUZZLES[1].true.hypothesis(with_rule=True)


def _by_metric(scores: Sequence[ScoreValue], stratum: str = "all") -> dict[str, ScoreValue]:
    return {score.metric: score for score in scores if score.stratum == stratum}


async def _scores(name: str, answerer, task: Task = FRUIT.task, **params) -> list[ScoreValue]:
    subjects = {"explanation": TRUE, "shuffled": OTHER}
    judged = await judge(SCORERS[name], task, subjects, How(params), answerer=answerer)
    return scored(SCORERS[name], task, judged, judge="test/judge")


# --- simulation


def _digits(explained: Sequence[str]):
    """Prompt logprobs of a model that puts a 9 at the explained words and a 0 elsewhere."""

    def scores(text: str) -> list[tuple[str, float, dict[str, float]]]:
        tokens: list[tuple[str, float, dict[str, float]]] = []
        last = ""
        for token, logprob, top in made_up_logprobs(text):
            if token.strip() == "unknown":
                digit = "9" if last in explained else "0"
                top = {digit: math.log(0.9), "unknown": math.log(0.1)}
            elif token.strip().isalpha():
                last = token.strip()
            tokens.append((token, logprob, top))
        return tokens

    return scores


FRUITS = ("plum", "pear", "peach", "melon", "lemon", "cherry")


async def test_simulation_reads_the_expected_digit_at_every_token(database):
    script = Script(prompt_scores=_digits(FRUITS))
    async with calling(database, script) as caller:
        answerer = LiveAnswerer(FRUIT.task.feature, caller)
        found = await _scores("simulation", answerer, n_windows=20)
    headline = found[0]
    assert headline.metric == "correlation"
    assert headline.value > 0.8
    assert headline.ci_low > 0.5
    assert headline.n == 20
    by_metric = _by_metric(found)
    assert by_metric["explained_variance"].value == pytest.approx(headline.value**2)
    assert by_metric["auroc"].value == 1.0


async def test_a_simulation_that_says_nothing_correlates_with_nothing(database):
    for scores, status, value in ((_digits(()), "ok", 0.0), (None, "failed", None)):
        async with calling(database, Script(prompt_scores=scores)) as caller:
            answerer = LiveAnswerer(FRUIT.task.feature, caller)
            headline = (await _scores("simulation", answerer, n_windows=20))[0]
        assert (headline.status, headline.value) == (status, value)
        # another endpoint for the next one: answers are kept
        async with database.write() as session:
            from sqlalchemy import text

            await session.execute(text("TRUNCATE llm_call CASCADE"))


def test_the_places_of_the_values_are_found_however_the_text_is_cut():
    pieces = [" plum", '"', "\n", "😀", ""]
    text, starts = simulation_text("fruit « »", pieces)
    assert [text[start : start + 7] for start in starts] == ["unknown"] * len(pieces)
    for size in (1, 3, 7, 50):
        cut = [TokenLogprob("<s>", None)]
        cut += [TokenLogprob(text[at : at + size], -1.0) for at in range(0, len(text), size)]
        for start in starts:
            token = token_at(cut, text, start)
            assert token.text in text[max(0, start - size + 1) : start + size]
    with pytest.raises(NotAligned):
        token_at([TokenLogprob("other", -1.0)], text, 0)
    with pytest.raises(NotAligned):
        tokens_from([], text, 0)


def test_digits_and_words_are_read_over_their_spellings():
    token = TokenLogprob("9", math.log(0.5), {" 9": math.log(0.25), "0": math.log(0.25), "10": -0.1})
    assert expected_digit(token) == pytest.approx(9 * 0.75 / 1.0)
    assert expected_digit(TokenLogprob("the", -0.1, {"the": -0.1})) is None
    yes = TokenLogprob("Yes", math.log(0.6), {"yes": math.log(0.1), " No": math.log(0.2), "Maybe": -3.0})
    assert yes_probability([TokenLogprob("```", -0.1), yes]) == pytest.approx(0.7 / 0.9)
    assert yes_probability([TokenLogprob("Perhaps", -0.1)]) is None


async def test_one_token_at_a_time_needs_no_prompt_logprobs():
    scorer = SCORERS["simulation"]
    how = How({"mode": "tokens", "n_windows": 20})
    assert scorer.needs(how).endpoint == ("chat", "chat_logprobs")

    class Digits:
        async def answer(self, asks):
            found = []
            for ask in asks:
                data = json.loads(ask.request.messages[1].content)
                digit = "8" if data["token"].strip() in FRUITS else "0"
                found.append(LLMAnswer("h", text=digit, logprobs=(TokenLogprob(digit, -0.01),)))
            return found

    judged = await judge(scorer, FRUIT.task, {"explanation": TRUE}, how, answerer=Digits())
    assert scored(scorer, FRUIT.task, judged, judge=None)[0].value > 0.8


@pytest.mark.parametrize("mode", ["prompt", "tokens"])
async def test_a_window_of_which_one_token_was_not_read_fails(mode):
    class Almost:
        async def answer(self, asks):
            said = _prompt_digits if mode == "prompt" else _one_digit
            return [said(ask.request, is_whole=number > 0) for number, ask in enumerate(asks)]

    scorer, how = SCORERS["simulation"], How({"mode": mode, "n_windows": 20})
    judged = await judge(scorer, FRUIT.task, {"explanation": TRUE}, how, answerer=Almost())
    failed = [v for v in judged.verdicts["explanation"] if v.state == "failed"]
    assert [v.reason for v in failed] == ["no digit at some of the tokens"]
    headline = scored(scorer, FRUIT.task, judged, judge=None)[0]
    assert (headline.status, headline.n_failed) == ("ok", 1)


def _one_digit(request, *, is_whole: bool) -> LLMAnswer:
    digit = "0" if is_whole else "none"
    return LLMAnswer("h", text=digit, logprobs=(TokenLogprob(digit, -0.01),))


def _prompt_digits(request, *, is_whole: bool) -> LLMAnswer:
    tokens = _digits(FRUITS)(request.text)
    if not is_whole:
        last = max(at for at, (token, _, _) in enumerate(tokens) if token.strip() == "unknown")
        tokens[last] = (tokens[last][0], -0.1, {})
    return LLMAnswer("h", prompt_logprobs=tuple(TokenLogprob(*token) for token in tokens))


# --- no verdicts, an order


async def test_embedding_sorts_by_closeness_and_stops_without_an_encoder():
    words = Hypothesis("plum pear peach melon lemon cherry")
    task = FRUIT.task
    answerer = LiveAnswerer(task.feature, embedder=BagOfWords())
    judged = await judge(SCORERS["embedding"], task, {"explanation": words}, How(), answerer=answerer)
    headline = scored(SCORERS["embedding"], task, judged, judge=BagOfWords.model)[0]
    assert (headline.metric, headline.judge) == ("auroc", "bag-of-words")
    assert headline.value > 0.8
    without = await judge(
        SCORERS["embedding"], task, {"explanation": words}, How(), answerer=LiveAnswerer(task.feature)
    )
    assert {v.reason for v in without.verdicts["explanation"]} == {"no encoder"}


async def test_surprisal_is_the_gain_in_likelihood_over_a_neutral_description():
    def likelihood(text: str) -> tuple[TokenLogprob, ...]:
        head, _, window = text.partition("\nText: ")
        knows = "fruit" in head
        tokens = [TokenLogprob(head + "\nText: ", None)]
        for word in window.split(" "):
            is_fruit = word.strip(".") in FRUITS
            tokens.append(
                TokenLogprob(("" if len(tokens) == 1 else " ") + word, -1.0 if knows and is_fruit else -3.0)
            )
        return tuple(tokens)

    class Model:
        async def answer(self, asks):
            return [LLMAnswer("h", prompt_logprobs=likelihood(ask.request.text)) for ask in asks]

    hypothesis = FRUIT.true.hypothesis()
    judged = await judge(
        SCORERS["surprisal"],
        FRUIT.task,
        {"explanation": hypothesis, "shuffled": Hypothesis("kinds of birds")},
        How(),
        answerer=Model(),
    )
    headline = scored(SCORERS["surprisal"], FRUIT.task, judged, judge="m")[0]
    assert headline.value == 1.0
    assert headline.ci_low < 1.0
    assert headline.baseline == 0.5
    requests = expected_requests(SCORERS["surprisal"], FRUIT.task, hypothesis, How())
    assert len(requests) == 2 * len(FRUIT.task.of("test"))
    assert len({r.text for r in requests if "of any kind" in r.text}) == len(FRUIT.task.of("test"))


# --- intervention


@dataclass
class Steered:
    """A feature that makes the model write of plums; the rule judge reads the texts."""

    threshold: float = 1.0
    fails: bool = False

    async def steer(self, feature, prompts, strengths, *, max_new_tokens, seed):
        if self.fails:
            raise Unavailable("The model is away.")
        return [
            f"a plum and a plum {n}" if strength >= self.threshold else f"nothing much {n}"
            for n, strength in enumerate(strengths)
        ]


@dataclass(frozen=True)
class SteerAndJudge(LiveAnswerer):
    """The steering is made up; the judge reads rules."""

    async def answer(self, asks):
        if asks and isinstance(asks[0], SteerAsk):
            return await super().answer(asks)
        return await Direct(RuleJudge()).answer(asks)


async def _effect(threshold: float, *, fails: bool = False) -> list[ScoreValue]:
    answerer = SteerAndJudge(FRUIT.task.feature, steerer=Steered(threshold, fails))
    return await _scores("intervention", answerer)


async def test_intervention_finds_the_effect_and_the_strength_it_needs():
    headline, *shares = await _effect(1.0)
    assert (headline.metric, headline.value, headline.baseline) == ("effect", 1.0, 0.0)
    assert headline.details["strength"] in {"strength 1", "strength 2"}
    assert headline.ci_low < 0.9
    assert {score.stratum: score.value for score in shares} == {
        "strength 0": 0.0,
        "strength 0.5": 0.0,
        "strength 1": 1.0,
        "strength 2": 1.0,
    }
    nothing = (await _effect(10.0))[0]
    assert nothing.value == 0.0
    assert nothing.ci_low < 0 < nothing.ci_high
    # what is shown without the feature as well is no effect
    always = (await _effect(0.0))[0]
    assert always.value == 0.0


async def test_without_the_live_model_there_is_no_effect_to_report():
    for scores in (
        await _effect(1.0, fails=True),
        await _scores("intervention", LiveAnswerer(FRUIT.task.feature)),
    ):
        assert {score.status for score in scores} == {"failed"}
        assert all(score.value is None for score in scores)
        assert sum(scores[0].details["failures"].values()) == scores[0].n == scores[0].n_failed


def test_the_estimate_of_an_intervention_has_the_judges_questions():
    requests = expected_requests(SCORERS["intervention"], FRUIT.task, TRUE, How())
    assert len(requests) == math.ceil(12 * 4 / 25)


# --- rules


class _At:
    """A rule for tests: the value of each token is its own number."""

    def predict(self, pieces):
        return tuple(float(piece) for piece in pieces)

    def to_json(self):
        return {"kind": "at"}


def _numbers(values: Sequence[float], *, fires: bool, split: str = "explain") -> list[Window]:
    return [
        Window(f"{split}{fires}{n}", (str(value),), (1.0 if fires else 0.0,), split, "interval 5", document=n)
        for n, value in enumerate(values)
    ]


def test_the_threshold_of_a_rule_comes_from_the_other_splits():
    known = [*_numbers([0.5, 0.6, 0.7], fires=True), *_numbers([0.1, 0.2, 0.5], fires=False)]
    assert best_threshold(_At(), known) == 0.6 or best_threshold(_At(), known) == 0.5
    clear = [*_numbers([0.5, 0.6], fires=True), *_numbers([0.1, 0.2], fires=False)]
    assert best_threshold(_At(), clear) == 0.5
    assert 0 < best_threshold(_At(), _numbers([0.0], fires=True)) < 1e-9
    # what would be best on the test split is not looked at
    test = [
        *_numbers([0.3] * 6, fires=True, split="test"),
        *_numbers([0.2] * 6, fires=False, split="test"),
    ]
    task = replace(FRUIT.task, windows=(*clear, *test))
    verdicts = SCORERS["rule"].parse(
        task, Hypothesis("numbers", rule=_At()), How(), done=(), subject="explanation"
    )
    assert not any(v.verdict for v in verdicts)
    found = _by_metric(SCORERS["rule"].aggregate(Basis(task, verdicts)))
    assert found["balanced_accuracy"].value == 0.5
    assert found["auroc"].value == 1.0
    assert found["auroc"].ci_low < 0.8
