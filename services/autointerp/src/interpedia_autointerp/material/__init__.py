"""The frozen material of a feature: windows of text, split by document, with near misses."""

from interpedia_autointerp.material.backend import ActivationBackend, Embedder, Steerer, Trace
from interpedia_autointerp.material.task import Population, Task
from interpedia_autointerp.material.window import HARD, NEGATIVES, SPLITS, Negative, Split, Window

__all__ = [
    "HARD",
    "NEGATIVES",
    "SPLITS",
    "ActivationBackend",
    "Embedder",
    "Negative",
    "Population",
    "Split",
    "Steerer",
    "Task",
    "Trace",
    "Window",
]
