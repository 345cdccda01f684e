"""The service's own comparison of explainers, on the frozen tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.autointerp.asking import asking
from benchmarks.autointerp.tasks import of_strata
from interpedia_autointerp.benchmarks.entries import Bench, compare
from interpedia_autointerp.benchmarks.report import report
from interpedia_autointerp.encoder import installed_encoder
from interpedia_autointerp.explainers import EXPLAINERS, How, Hypothesis
from interpedia_autointerp.llm import LLMSettings
from interpedia_autointerp.material import Embedder, Task
from interpedia_autointerp.scorers import SCORERS, feature_cost
from interpedia_autointerp.scorers.cost import TokenCost

RULES = ("token-lookup", "token-classes", "ngrams", "logit-list")
PROSE = ("examples", "token-pairs", "examples-logits", "contrastive")
TYPICAL = Hypothesis("words about rivers, lakes and the people who live beside them, at the noun itself")
PEER_TOKENS = 41_000


class Remembering:
    """An encoder that encodes no text twice: every method is scored on the same windows."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    @property
    def model(self) -> str:
        """The encoder's name."""
        return self._encoder.model

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [n, 384], rows of length 1."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._encoder.embed(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def by_rules(tasks: Sequence[Task]) -> dict[str, Any]:
    """Explainers and scorers that need no LLM."""
    encoder = installed_encoder()
    embedder = None if encoder is None else Remembering(encoder)
    scorers = ["rule", *(["embedding"] if embedder is not None else [])]
    bench = Bench(
        [_explainer(name) for name in RULES], [_scorer(name) for name in scorers], embedder=embedder
    )
    began = time.process_time()
    found = report(asyncio.run(compare(bench, tasks)))
    return found | {"cpu_s": time.process_time() - began}


def with_llm(tasks: Sequence[Task], url: str, settings: LLMSettings) -> dict[str, Any]:
    """All explainers under the judging scorers, on the endpoint called default."""

    async def run() -> dict[str, Any]:
        async with asking(url, settings) as it:
            found = await it.caller.capabilities("default")
            bench = Bench(
                [_explainer(name) for name in (*RULES, *PROSE)],
                [_scorer(name) for name in ("detection", "fuzzing")],
                caller=it.caller,
                budget=it.job_id,
            )
            entries = await compare(bench, tasks)
            return report(entries) | {"model": found.reported_model}

    return asyncio.run(run())


def cost(tasks: Sequence[Task]) -> dict[str, Any]:
    """Tokens to explain one feature and to score it by detection and fuzzing; counted, nothing is asked."""
    return {
        "peer": PEER_TOKENS,
        "as_many_windows": _cost([of_strata(tasks)]),
        "frozen_tasks": _cost([task for task in tasks if task.status == "ok"]),
    }


def _cost(tasks: Sequence[Task]) -> dict[str, float]:
    scorers = {SCORERS[name]: How() for name in ("detection", "fuzzing")}
    rows = [feature_cost(task, (EXPLAINERS["examples"], How()), scorers, TYPICAL) for task in tasks]
    once = sum((cost for row in rows for cost in row.values()), TokenCost())
    baseline = sum((cost for row in rows for name, cost in row.items() if name != "explain"), TokenCost())
    return {
        "tokens": once.tokens / len(rows),
        "calls": once.calls / len(rows),
        "tokens_with_baseline": (once + baseline).tokens / len(rows),
    }


def _explainer(name: str) -> Any:
    explainer = EXPLAINERS[name]
    return explainer, How(explainer.params_model())


def _scorer(name: str) -> Any:
    scorer = SCORERS[name]
    return scorer, How(scorer.params_model())
