"""Runs texts on a feature. A text that is refused fails alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interpedia_autointerp.material import ActivationBackend, Trace
from interpedia_autointerp.redteam.attempt import Attempt
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import Invalid


async def run(
    backend: ActivationBackend, feature: FeatureRef, attempts: Sequence[Attempt], maxima: Sequence[float]
) -> list[Attempt]:
    """The attempts with what the feature did; those set aside before stay as they are.

    Args:
        backend: the live model.
        feature: which.
        attempts: texts and rows of token ids.
        maxima: of the feature's own examples, ascending.

    Raises:
        Problem: the live model cannot be reached.
    """
    done = list(attempts)
    by_text = [at for at, each in enumerate(attempts) if each.state == "new" and not each.token_ids]
    by_ids = [at for at, each in enumerate(attempts) if each.state == "new" and each.token_ids]
    for at, trace in await _texts(backend, feature, attempts, by_text):
        if isinstance(trace, str):
            done[at] = replace(attempts[at], state="failed", reason=trace)
        else:
            done[at] = attempts[at].ran(trace, maxima)
    if by_ids:
        rows = [attempts[at].token_ids for at in by_ids]
        for at, trace in zip(by_ids, await backend.on_tokens(feature, rows), strict=True):
            done[at] = attempts[at].ran(trace, maxima)
    return done


async def _texts(
    backend: ActivationBackend, feature: FeatureRef, attempts: Sequence[Attempt], places: Sequence[int]
) -> list[tuple[int, Trace | str]]:
    """All at once; one by one when one of them is refused."""
    if not places:
        return []
    try:
        traces = await backend.on_texts(feature, [attempts[at].text for at in places])
    except Invalid as problem:
        if len(places) == 1:
            return [(places[0], problem.detail)]
        half = len(places) // 2
        return [
            *await _texts(backend, feature, attempts, places[:half]),
            *await _texts(backend, feature, attempts, places[half:]),
        ]
    return list(zip(places, traces, strict=True))
