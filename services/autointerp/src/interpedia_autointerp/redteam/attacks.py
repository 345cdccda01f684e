"""Texts by the LLM: what should fire, minimal pairs, traps; and a second look at what each of them is."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from interpedia_autointerp.explainers import How, Hypothesis, Prompt
from interpedia_autointerp.llm import Caller, JSONFormat, LLMAnswer, LLMRequest, Message, Sampling
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.redteam.attempt import LLM, Attempt, Intent
from interpedia_autointerp.redteam.prompts import (
    PAIRS,
    PARAPHRASE,
    TRAP,
    VARIED,
    pairs_format,
    texts_format,
)
from interpedia_autointerp.scorers import LLMAsk
from interpedia_autointerp.scorers.detection import DetectionParams
from interpedia_autointerp.scorers.judging import Item, batches, read_label, verdict_ask
from interpedia_autointerp.scorers.prompts import DETECTION

MAX_CHARACTERS = 600
_TOKENS_PER_TEXT = 90
_SHOWN_USED = 60
_KINDS: tuple[tuple[str, Prompt, Intent], ...] = (
    ("varied", VARIED, "should_fire"),
    ("paraphrase", PARAPHRASE, "should_fire"),
    ("trap", TRAP, "should_not_fire"),
)


@dataclass(frozen=True)
class Attacker:
    """One endpoint writing attacks for one run."""

    caller: Caller
    endpoint: str
    run_id: uuid.UUID
    job_id: uuid.UUID
    seed: int
    repeat: int

    async def write(
        self, hypothesis: Hypothesis, *, count: int, words: Sequence[str], used: Sequence[str]
    ) -> tuple[list[Attempt], list[str]]:
        """New texts of all kinds, and a sentence for each kind that failed.

        Args:
            hypothesis: what is to be refuted.
            count: texts of each kind.
            words: tokens on which the feature fires most, for the traps.
            used: texts that were tried before; one that comes back is dropped.

        Raises:
            JobPaused, Problem: what the caller raises.
        """
        answers = await self.ask(self.requests(hypothesis, count=count, words=words, used=used))
        found: list[Attempt] = []
        failures: list[str] = []
        for (kind, _, intent), answer in zip(_KINDS, answers[:-1], strict=True):
            if answer.failure is not None:
                failures.append(f"{kind}: {answer.failure.detail}")
                continue
            found += [Attempt(text, intent, kind, LLM) for text in answer.data["texts"][:count]]
        if answers[-1].failure is not None:
            failures.append(f"pair: {answers[-1].failure.detail}")
        else:
            found += _pairs(answers[-1], count)
        return _fresh(found, used), failures

    def requests(
        self, hypothesis: Hypothesis, *, count: int, words: Sequence[str], used: Sequence[str]
    ) -> list[LLMRequest]:
        """One question for each of the kinds, and one for pairs."""
        data: dict[str, object] = {
            "claim": hypothesis.text,
            "count": count,
            "used": list(used[-_SHOWN_USED:]),
        }
        found = [
            self._request(prompt, {**data, "words": list(words)}, texts_format(), count)
            for _, prompt, _ in _KINDS
        ]
        return [*found, self._request(PAIRS, data, pairs_format(), 2 * count)]

    async def check(self, hypothesis: Hypothesis, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those that a judge finds to be the contrary of what they should be are set aside.

        It keeps a writer that failed apart from a hypothesis that failed. What the judge cannot say stays.

        Raises:
            JobPaused, Problem: what the caller raises.
        """
        asks = self.checks(hypothesis, attempts)
        answers = await self.ask([ask.request for ask in asks if isinstance(ask.request, LLMRequest)])
        checked = list(attempts)
        for ask, answer in zip(asks, answers, strict=True):
            for label, item in enumerate(ask.items, 1):
                read = read_label(answer, str(label))
                each = checked[int(item)]
                if read.state == "ok" and read.verdict != (each.intent == "should_fire"):
                    checked[int(item)] = replace(each, state="off_intent", reason="the judge disagrees")
        return checked

    def checks(self, hypothesis: Hypothesis, attempts: Sequence[Attempt]) -> list[LLMAsk]:
        """Questions whether the texts are what they should be."""
        items = [
            Item(str(number), each.kind, each.intent == "should_fire", {"text": each.text})
            for number, each in enumerate(attempts)
        ]
        how = How(DetectionParams(), self.endpoint, self.seed, self.repeat)
        return [
            verdict_ask(DETECTION, hypothesis, part, how, extra={}) for part in batches(items, 20, self.seed)
        ]

    async def ask(self, requests: Sequence[LLMRequest]) -> list[LLMAnswer]:
        """All answers, in order.

        Raises:
            JobPaused, Problem: what the caller raises.
        """
        found: dict[int, LLMAnswer] = {}
        stream = self.caller.ask_all(requests, run_id=self.run_id, budget=self.job_id)
        async with aclosing(stream) as landed:
            async for position, answer in landed:
                found[position] = answer
        return [found[position] for position in range(len(requests))]

    def _request(self, prompt: Prompt, data: dict[str, object], output: JSONFormat, count: int) -> LLMRequest:
        return LLMRequest(
            (Message("system", prompt.system), Message("user", as_data(data))),
            endpoint=self.endpoint,
            output=output,
            sampling=Sampling(200 + _TOKENS_PER_TEXT * count, temperature=1.0, seed=self.seed),
            repeat=self.repeat,
            allow_repair=True,
        )


def _pairs(answer: LLMAnswer, count: int) -> list[Attempt]:
    found: list[Attempt] = []
    for number, pair in enumerate(answer.data["pairs"][:count]):
        found.append(Attempt(pair["with"], "should_fire", "pair", LLM, number))
        found.append(Attempt(pair["without"], "should_not_fire", "pair", LLM, number))
    return found


def _fresh(attempts: Sequence[Attempt], used: Sequence[str]) -> list[Attempt]:
    """Each text once, none that was tried, and of a pair both or none."""
    seen = {_plain(text) for text in used}
    kept: list[Attempt] = []
    for each in attempts:
        plain = _plain(each.text)
        if plain and plain not in seen and len(each.text) <= MAX_CHARACTERS:
            seen.add(plain)
            kept.append(each)
    sizes = {n: sum(each.pair == n for each in kept) for n in {each.pair for each in kept}}
    return [each for each in kept if each.pair is None or sizes[each.pair] == 2]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
