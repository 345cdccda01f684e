"""Writing explanations, and the rule by which one of them is shown."""

from __future__ import annotations

from interpedia_shared.explanations.defaults import ABOVE_CHANCE, IS_EVIDENCE, choose_default, lock_defaults
from interpedia_shared.explanations.writing import (
    HUMAN,
    MAX_TEXT,
    NewExplanation,
    add_explanations,
    clean_text,
    refresh_copies,
)

__all__ = [
    "ABOVE_CHANCE",
    "HUMAN",
    "IS_EVIDENCE",
    "MAX_TEXT",
    "NewExplanation",
    "add_explanations",
    "choose_default",
    "clean_text",
    "lock_defaults",
    "refresh_copies",
]
