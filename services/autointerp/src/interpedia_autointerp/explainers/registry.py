"""All explainers by name."""

from __future__ import annotations

from collections.abc import Mapping

from interpedia_autointerp.explainers.deterministic import FuzzyClasses, LogitList, NGramRule, TokenLookUp
from interpedia_autointerp.explainers.method import Explainer
from interpedia_autointerp.explainers.prose import (
    Contrastive,
    ExamplesWithLogits,
    MaxActivating,
    TokenPairs,
)

EXPLAINERS: Mapping[str, Explainer] = {
    each.name: each
    for each in (
        MaxActivating(),
        TokenPairs(),
        ExamplesWithLogits(),
        Contrastive(),
        TokenLookUp(),
        FuzzyClasses(),
        NGramRule(),
        LogitList(),
    )
}
