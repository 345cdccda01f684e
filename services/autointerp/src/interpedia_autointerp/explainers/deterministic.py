"""Explainers that need no LLM: they count. Their rules run, so their scores need no judge either.

They are also the baselines of every prose explanation: does it beat a table?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import MAX_TEXT, Hypothesis
from interpedia_autointerp.explainers.method import Explained, Explainer, How, Params, Prompt
from interpedia_autointerp.explainers.params import params_of, ready
from interpedia_autointerp.explainers.rules import (
    CLASS_NAMES,
    NextTokens,
    NGrams,
    TokenClasses,
    TokenTable,
    passes,
    word_of,
)
from interpedia_autointerp.explainers.wording import joined, listed, shortened, shown
from interpedia_autointerp.llm import LLMAnswer, LLMRequest, Need
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.window import Window

NOTHING = Explained(
    (Hypothesis("No pattern found in the tokens it fires on.", no_pattern=True, confidence=0.0),)
)


class Counting(Explainer):
    """What the explainers without an LLM share."""

    prompt: Prompt | None = None

    @override
    def needs(self, how: How) -> tuple[Need, ...]:
        """Nothing."""
        return ()

    @override
    def plan(self, task: Task, how: How) -> list[LLMRequest]:
        """Nothing to ask."""
        ready(task)
        return []


class LookUpParams(Params):
    """Of `token-lookup`."""

    coverage: float = Field(default=0.8, gt=0, le=1, description="Share of the activation to be covered.")
    max_tokens: int = Field(default=200, ge=1, le=2000)
    shrinkage: float = Field(default=1.0, ge=0, description="Silent sightings added to every token's count.")


class TokenLookUp(Counting):
    """The mean activation at each token."""

    name = "token-lookup"
    version = "1"
    summary = "Table of mean activations by token; no LLM."
    params_model: type[Params] = LookUpParams

    @override
    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """The tokens that cover most of the activation."""
        params = params_of(LookUpParams, how)
        sums: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for piece, value in _tokens(task):
            sums[piece] += value
            counts[piece] += 1
        total = sum(sums.values())
        ranked = sorted((piece for piece in sums if sums[piece] > 0), key=lambda p: (-sums[p], p))
        kept: dict[str, float] = {}
        covered = 0.0
        for piece in ranked[: params.max_tokens]:
            kept[piece] = round(sums[piece] / (counts[piece] + params.shrinkage), 6)
            covered += sums[piece]
            if covered >= params.coverage * total:
                break
        if not kept:
            return NOTHING
        strongest = sorted(kept, key=lambda p: (-kept[p] * counts[p], p))
        text = shortened(f"Tokens {listed(strongest)}", MAX_TEXT)
        return Explained((Hypothesis(text, trigger="token", rule=TokenTable(kept)),))


class ClassParams(Params):
    """Of `token-classes`."""

    max_tests: int = Field(default=6, ge=1, le=20)
    penalty: float = Field(default=0.02, ge=0, le=1, description="F1 that another test must add.")


class FuzzyClasses(Counting):
    """Classes of tokens: words, beginnings, endings, kinds of characters."""

    name = "token-classes"
    version = "1"
    summary = "Words, beginnings, endings or kinds of characters that fit the tokens best; no LLM."
    params_model: type[Params] = ClassParams

    @override
    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """Greedily the union of tests with the best F1 over tokens."""
        params = params_of(ClassParams, how)
        tokens = list(_tokens(task))
        pieces = sorted({piece for piece, _ in tokens})
        number = {piece: at for at, piece in enumerate(pieces)}
        fires, silent = np.zeros(len(pieces)), np.zeros(len(pieces))
        for piece, value in tokens:
            (fires if value > 0 else silent)[number[piece]] += 1
        members = {
            test: np.array([passes(test, piece) for piece in pieces])
            for test in _candidate_tests([p for p in pieces if fires[number[p]]])
        }
        chosen = _greedy(members, fires, silent, params)
        if not chosen:
            return NOTHING
        hit = np.logical_or.reduce([members[test] for test in chosen])
        mean = sum(v for p, v in tokens if hit[number[p]]) / float((fires + silent)[hit].sum())
        text = shortened(joined([_test_in_words(*test) for test in chosen]), MAX_TEXT)
        rule = TokenClasses(tuple(chosen), round(mean, 6))
        return Explained((Hypothesis(text[0].upper() + text[1:], trigger="token", rule=rule),))


_SAYS_MOST = {"word": 2, "class": 1, "prefix": 0, "suffix": 0}


def _greedy(
    members: dict[tuple[str, str], np.ndarray], fires: np.ndarray, silent: np.ndarray, params: ClassParams
) -> list[tuple[str, str]]:
    """Tests whose union is best, each worth more than the penalty."""
    chosen: list[tuple[str, str]] = []
    covered = np.zeros(len(fires), np.bool_)
    best = 0.0
    while len(chosen) < params.max_tests:
        gains = {test: _f1(covered | hit, fires, silent) for test, hit in members.items()}
        # of equals what says most: a word, a kind of characters, a long beginning or ending
        test = max(gains, key=lambda t: (gains[t], _SAYS_MOST[t[0]], len(t[1]), t), default=None)
        if test is None or gains[test] < best + params.penalty:
            break
        chosen.append(test)
        covered, best = covered | members[test], gains[test]
    return chosen


def _f1(hit: np.ndarray, fires: np.ndarray, silent: np.ndarray) -> float:
    found = float(fires[hit].sum())
    return 2 * found / (found + float(silent[hit].sum()) + float(fires.sum())) if found else 0.0


def _candidate_tests(active: Sequence[str]) -> list[tuple[str, str]]:
    """Tests that some token passes on which the feature fires."""
    found: dict[tuple[str, str], None] = {}
    for piece in active:
        word = word_of(piece)
        found[("word", word)] = None
        if word.isalpha():
            found |= {("prefix", word[:n]): None for n in range(3, len(word))}
            found |= {("suffix", word[-n:]): None for n in (2, 3, 4) if n < len(word)}
        found |= {("class", name): None for name in CLASS_NAMES if passes(("class", name), piece)}
    return list(found)


def _test_in_words(name: str, argument: str) -> str:
    match name:
        case "word":
            return f"the word {shown(argument)}" if argument.strip() else shown(argument)
        case "prefix":
            return f"words that begin with {shown(argument)}"
        case "suffix":
            return f"words that end in {shown(argument)}"
        case _:
            return {"number": "numbers", "other script": "letters of another script"}.get(argument, argument)


class NGramParams(Params):
    """Of `ngrams`."""

    max_length: int = Field(default=4, ge=1, le=8)
    kept: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Share of the best mean that a shorter n-gram must keep.",
    )
    least: float = Field(default=0.1, ge=0, le=1, description="Mean activation below which one is left out.")
    max_entries: int = Field(default=300, ge=1, le=2000)


class NGramRule(Counting):
    """The shortest contexts that keep the activation, merged; the longest match predicts.

    Source: the idea of Foote et al. (2023), Neuron to Graph, with co-occurrence in place of forward passes.
    """

    name = "ngrams"
    version = "1"
    summary = "Sequences of words that end where it fires; no LLM."
    params_model: type[Params] = NGramParams

    @override
    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """For each token on which it fires the shortest n-gram that explains it."""
        params = params_of(NGramParams, how)
        means, mass = _ngram_means(task, params.max_length)
        entries: dict[tuple[str, ...], float] = {}
        for grams in _active_grams(task, params.max_length):
            best = max(means[gram] for gram in grams)
            gram = next(gram for gram in grams if means[gram] >= params.kept * best)
            if means[gram] >= params.least:
                entries[gram] = round(means[gram], 6)
        if not entries:
            return NOTHING
        ranked = sorted(entries, key=lambda gram: (-mass[gram], gram))[: params.max_entries]
        parts = [_gram_in_words(gram) for gram in ranked[:8]]
        text = shortened(joined(list(dict.fromkeys(parts))), MAX_TEXT)
        rule = NGrams({gram: entries[gram] for gram in ranked})
        is_phrase = any(len(gram) > 1 for gram in ranked[:8])
        return Explained((Hypothesis(text, trigger="phrase" if is_phrase else "token", rule=rule),))


def _ngram_means(
    task: Task, longest: int
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Mean activation of every n-gram that ends at a token, with one silent sighting added; and the sum."""
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for window in task.of("explain"):
        words = [word_of(piece) for piece in window.pieces]
        for end in range(1, len(words) + 1):
            for length in range(1, min(longest, end) + 1):
                gram = tuple(words[end - length : end])
                sums[gram] += _share(window.values[end - 1], task)
                counts[gram] += 1
    # half a sighting for what was seen once: rare n-grams would all look certain
    return {gram: sums[gram] / (counts[gram] + 0.5) for gram in sums}, sums


def _active_grams(task: Task, longest: int) -> list[list[tuple[str, ...]]]:
    """For every token on which it fires: the n-grams that end there, shortest first."""
    found: list[list[tuple[str, ...]]] = []
    for window in task.of("explain", fires=True):
        words = [word_of(piece) for piece in window.pieces]
        for at in window.active():
            if _share(window.values[at], task) > 0:
                found.append([tuple(words[at + 1 - n : at + 1]) for n in range(1, min(longest, at + 1) + 1)])
    return found


def _gram_in_words(gram: tuple[str, ...]) -> str:
    if len(gram) == 1:
        return shown(gram[0])
    before = " ".join(word.strip() or shown(word) for word in gram[:-1])
    return f"{shown(gram[-1])} after “{before}”"


class LogitParams(Params):
    """Of `logit-list`."""

    n_tokens: int = Field(default=10, ge=1, le=50)
    shared: float = Field(default=0.6, gt=0, le=1, description="Share that must begin alike to be said so.")


class LogitList(Counting):
    """What the feature makes the model say next, by its direct effect on the logits."""

    name = "logit-list"
    version = "1"
    summary = "Tokens whose logits it raises most, as a claim about the output; no LLM."
    params_model: type[Params] = LogitParams

    @override
    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """The promoted tokens; as a rule it fires where one of them comes next."""
        params = params_of(LogitParams, how)
        words = [token for token, effect in task.promoted[: params.n_tokens] if effect > 0]
        if not words:
            return Explained((Hypothesis("Raises no token's logit.", "output", no_pattern=True),))
        start = _common_start([word_of(word) for word in words], params.shared)
        text = f"Makes {listed(words)} more likely as the next token"
        if start:
            text = f"Makes words that begin with {shown(start)} more likely next, as {listed(words, 5)}"
        rule = NextTokens(frozenset(word for word in map(word_of, words) if word.strip()))
        return Explained((Hypothesis(shortened(text, MAX_TEXT), "output", "token", "next", rule=rule),))


def _common_start(words: Sequence[str], share: float) -> str:
    """The longest beginning, of two letters or more, that enough of the words have."""
    starts = {word[:n] for word in words for n in range(2, len(word) + 1)}
    least = max(2.0, share * len(words))
    enough = [s for s in starts if sum(word.startswith(s) for word in words) >= least]
    return max(enough, key=lambda s: (len(s), s), default="")


def _tokens(task: Task) -> list[tuple[str, float]]:
    """Every token of the explain split with its activation, in shares of the maximum."""
    return [
        (piece, _share(value, task))
        for window in task.of("explain")
        for piece, value in _pairs(window)
        if piece
    ]


def _pairs(window: Window) -> list[tuple[str, float]]:
    return list(zip(window.pieces, window.values, strict=True))


def _share(value: float, task: Task) -> float:
    """Of the feature's largest activation; the negative side of a neuron counts as silent."""
    return max(0.0, value) / task.max_activation if task.max_activation > 0 else 0.0
