"""Explainers that ask an LLM. They differ in what it gets to see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import MAX_TEXT, Hypothesis
from interpedia_autointerp.explainers.method import Explained, Explainer, How, Params, Prompt
from interpedia_autointerp.explainers.params import params_of, ready
from interpedia_autointerp.explainers.prompts import CONTRASTIVE, EXAMPLES, HYPOTHESIS, LOGITS, PAIRS
from interpedia_autointerp.llm import LLMAnswer, LLMRequest, Message, Need, Sampling
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.material.text import as_data, choose_marks
from interpedia_autointerp.material.window import HARD, Window

_MARKED_SHARE = 0.2
"""Tokens with at least this share of the excerpt's peak are marked."""
_MAX_PAIRS = 8
_OPENERS = re.compile(
    r"^\s*(?:\*\*)?(?:explanation|answer|hypothesis|sure|okay|let me|first,? i|the marked tokens)\b"
    r"[^.:]{0,60}[:.]\**\s+",
    re.IGNORECASE,
)


class ProseParams(Params):
    """Of every explainer that asks an LLM."""

    n_examples: int = Field(default=16, ge=1, le=60, description="Most excerpts shown.")
    samples: int = Field(default=1, ge=1, le=8, description="Hypotheses drawn; several need temperature.")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=1000, ge=50, le=20_000, description="Of an answer, reasoning included.")


class ContrastiveParams(ProseParams):
    """Of `contrastive`."""

    n_silent: int = Field(default=8, ge=1, le=60, description="Most silent excerpts shown, hard ones first.")


class LogitExamplesParams(ProseParams):
    """Of `examples-logits`."""

    n_logits: int = Field(default=10, ge=1, le=50)


class Asking(Explainer):
    """What explainers with an LLM share; each has its own `data`."""

    name = ""
    version = "1"
    summary = ""
    prompt: Prompt | None = EXAMPLES
    params_model: type[Params] = ProseParams

    @override
    def needs(self, how: How) -> tuple[Need, ...]:
        """Plain chat; several samples need a temperature."""
        return ("chat", "temperature") if self._params(how).samples > 1 else ("chat",)

    @override
    def plan(self, task: Task, how: How) -> list[LLMRequest]:
        """One question for each sample."""
        ready(task)
        assert self.prompt is not None
        params = self._params(how)
        messages = (
            Message("system", self.prompt.system),
            Message("user", as_data(self.data(task, params))),
        )
        return [
            LLMRequest(
                messages,
                endpoint=how.endpoint,
                output=HYPOTHESIS,
                sampling=Sampling(params.max_tokens, params.temperature, seed=how.seed + number),
                repeat=how.repeat * params.samples + number,
                allow_repair=True,
            )
            for number in range(params.samples)
        ]

    @override
    def parse(self, task: Task, how: How, answers: Sequence[LLMAnswer]) -> Explained:
        """A hypothesis from every good answer."""
        shown = [window.text for window in task.of("explain")]
        hypotheses: list[Hypothesis] = []
        failures: list[str] = []
        for answer in answers:
            try:
                hypotheses.append(read_hypothesis(answer, shown))
            except BadHypothesis as error:
                failures.append(str(error))
        return Explained(tuple(dict.fromkeys(hypotheses)), tuple(failures))

    def _params(self, how: How) -> ProseParams:
        params = params_of(self.params_model, how)
        assert isinstance(params, ProseParams)
        return params

    def data(self, task: Task, params: Any) -> dict[str, Any]:
        """What the question is about."""
        windows = _chosen(task, params.n_examples)
        marks = choose_marks(window.text for window in windows)
        return {"marks": list(marks), "active": [_example(w, task, marks) for w in windows]}


class MaxActivating(Asking):
    """The excerpts with their active tokens marked."""

    name = "examples"
    summary = "LLM reads excerpts of all strengths with the active tokens marked."


class TokenPairs(Asking):
    """The excerpts and lists of token and activation."""

    name = "token-pairs"
    summary = "LLM reads excerpts with a list of active tokens and their activations."
    prompt = PAIRS

    def data(self, task: Task, params: Any) -> dict[str, Any]:
        """Excerpts with pairs."""
        windows = _chosen(task, params.n_examples)
        return {"active": [{"text": w.text, "tokens": _pairs(w, task)} for w in windows]}


class ExamplesWithLogits(Asking):
    """Excerpts, and what the feature does to the next token."""

    name = "examples-logits"
    summary = "LLM reads excerpts, the tokens that follow, and the tokens whose logits the feature moves."
    prompt = LOGITS
    params_model: type[Params] = LogitExamplesParams

    def data(self, task: Task, params: Any) -> dict[str, Any]:
        """Excerpts with the next token, and the logit lens."""
        windows = _chosen(task, params.n_examples)
        marks = choose_marks(window.text for window in windows)
        active = [{**_example(w, task, marks), "next": _next(w)} for w in windows]
        return {
            "marks": list(marks),
            "active": active,
            "raises": [token for token, _ in task.promoted[: params.n_logits]],
            "lowers": [token for token, _ in task.suppressed[: params.n_logits]],
        }


class Contrastive(Asking):
    """Excerpts on which it fires, and similar ones on which it does not."""

    name = "contrastive"
    summary = "LLM reads excerpts beside near misses on which the feature is silent."
    prompt = CONTRASTIVE
    params_model: type[Params] = ContrastiveParams

    def data(self, task: Task, params: Any) -> dict[str, Any]:
        """Both lists."""
        windows = _chosen(task, params.n_examples)
        silent = sorted(task.of("explain", fires=False), key=lambda w: w.stratum not in HARD)
        silent = silent[: params.n_silent]
        marks = choose_marks(window.text for window in (*windows, *silent))
        return {
            "marks": list(marks),
            "active": [_example(w, task, marks) for w in windows],
            "silent": [w.text for w in silent],
        }


class BadHypothesis(ValueError):
    """An answer that is no explanation; the text says why."""


def read_hypothesis(answer: LLMAnswer, shown: Iterable[str] = ()) -> Hypothesis:
    """The hypothesis in an answer.

    Args:
        answer: of a request whose output is `HYPOTHESIS`.
        shown: texts that an explanation must not merely repeat.

    Raises:
        BadHypothesis: the call failed, or what it said is no explanation.
    """
    if answer.failure is not None:
        raise BadHypothesis(f"{answer.failure.kind}: {answer.failure.detail}")
    data = answer.data
    readable = "".join(c for c in " ".join(str(data["explanation"]).split()) if c.isprintable())
    text = _OPENERS.sub("", readable).strip(" *\"'")
    if not any(c.isalnum() for c in text):
        raise BadHypothesis("empty: the explanation has no words.")
    if len(text) > MAX_TEXT:
        raise BadHypothesis(f"too_long: the explanation has {len(text)} characters, {MAX_TEXT} are allowed.")
    if len(text) > 60 and any(text in " ".join(each.split()) for each in shown):
        raise BadHypothesis("copied: the explanation repeats an excerpt.")
    return Hypothesis(
        text=text,
        role=data["role"],
        trigger=data["trigger"],
        position=data["position"],
        confidence=min(1.0, max(0.0, float(data["confidence"]))),
        no_pattern=data["no_pattern"],
    )


def _chosen(task: Task, most: int) -> list[Window]:
    """Of the firing windows: half the strongest, the other half evenly over the rest, strongest first."""
    windows = task.of("explain", fires=True)
    if len(windows) <= most:
        return list(windows)
    n_top = (most + 1) // 2
    rest = windows[n_top:]
    n_rest = most - n_top
    spread = [rest[(2 * k + 1) * len(rest) // (2 * n_rest)] for k in range(n_rest)]
    return [*windows[:n_top], *spread]


def _example(window: Window, task: Task, marks: tuple[str, str]) -> dict[str, Any]:
    return {
        "text": window.marked(window.active(_MARKED_SHARE), marks),
        "strength": _strength(window.max, task),
    }


def _strength(value: float, task: Task) -> int:
    """1 to 9."""
    share = abs(value) / task.max_activation if task.max_activation > 0 else 0.0
    return max(1, min(9, round(9 * share)))


def _pairs(window: Window, task: Task) -> list[dict[str, Any]]:
    strongest = sorted(window.active(), key=lambda at: -abs(window.values[at]))[:_MAX_PAIRS]
    return [
        {
            "before": "".join(window.pieces[max(0, at - 3) : at]),
            "token": window.pieces[at],
            "activation": _strength(window.values[at], task),
        }
        for at in sorted(strongest)
    ]


def _next(window: Window) -> str:
    """The token after the peak; empty at the window's end."""
    return "".join(window.pieces[window.peak + 1 : window.peak + 2])
