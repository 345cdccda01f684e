"""Which other feature's explanation is judged in place of the feature's own, for the baseline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from interpedia_autointerp.explainers.hypothesis import Hypothesis
from interpedia_shared.ids import FeatureRef


def partner(
    feature: FeatureRef, own: Hypothesis, others: Mapping[FeatureRef, Hypothesis], *, seed: int = 0
) -> FeatureRef | None:
    """One of the others, by chance, the same at every run; None when there is none.

    Never the feature itself, never one with the same text, and, when the own explanation has a rule, one
    with a rule too. Give explanations of one SAE, by one method where it has enough of them.
    """
    candidates = [
        ref
        for ref, other in others.items()
        if ref != feature
        and _plain(other.text) != _plain(own.text)
        and (own.rule is None or other.rule is not None)
    ]
    return min(candidates, key=lambda ref: _draw(seed, feature, ref), default=None)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _draw(seed: int, feature: FeatureRef, other: FeatureRef) -> bytes:
    return hashlib.sha256(f"{seed} {feature} {other}".encode()).digest()
