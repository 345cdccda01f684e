"""Embedding: are the windows on which it fires closer in meaning to the explanation? No judge.

Good for topics; blind to negation, position and counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_autointerp.explainers.method import How, Params, Prompt
from interpedia_autointerp.material.task import Task
from interpedia_autointerp.scorers.judging import check_subject
from interpedia_autointerp.scorers.method import Ask, Basis, EmbedAsk, Needs, Refused, Round, Scorer
from interpedia_autointerp.scorers.metrics import AUROC, AVERAGE_PRECISION
from interpedia_autointerp.scorers.strata import strata_scores
from interpedia_autointerp.scorers.tally import scores_of
from interpedia_autointerp.scorers.verdict import ScoreValue, Subject, Verdict


class Embedding(Scorer):
    """Cosine of explanation and window."""

    name = "embedding"
    version = "1"
    summary = "Closeness in meaning of the explanation to windows; no LLM, and blind to much."
    prompt: Prompt | None = None
    params_model: type[Params] = Params

    @override
    def needs(self, how: How) -> Needs:
        """An encoder."""
        return Needs(embeddings=True)

    @override
    def plan(self, task: Task, hypothesis: Hypothesis, how: How, done: Sequence[Round] = ()) -> list[Ask]:
        """One round: the explanation, then the windows."""
        check_subject(task, hypothesis)
        if done:
            return []
        windows = task.of("test")
        return [EmbedAsk((hypothesis.text, *(window.text for window in windows)))]

    @override
    def parse(
        self,
        task: Task,
        hypothesis: Hypothesis,
        how: How,
        *,
        done: Sequence[Round],
        subject: Subject,
    ) -> list[Verdict]:
        """One cosine for every window."""
        windows = task.of("test")
        answer = done[0].answers[0] if done else Refused("not asked")
        blank = [Verdict(self.name, subject, w.id, w.stratum, w.fires) for w in windows]
        if not isinstance(answer, np.ndarray):
            reason = answer.reason if isinstance(answer, Refused) else "no vectors"
            return [replace(verdict, state="failed", reason=reason) for verdict in blank]
        cosines = (answer[1:] @ answer[0]).tolist()
        return [
            replace(v, probability=cosine)
            if math.isfinite(cosine)
            else replace(v, state="failed", reason="no number")
            for v, cosine in zip(blank, cosines, strict=True)
        ]

    @override
    def aggregate(self, basis: Basis) -> list[ScoreValue]:
        """How well the cosine sorts the windows."""
        metrics = [replace(AUROC, is_headline=True), AVERAGE_PRECISION]
        return [*scores_of(self.name, metrics, basis), *strata_scores(self.name, basis, "auroc")]
