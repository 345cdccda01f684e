"""Frozen material: made once, and then the same for every explainer, scorer and retry."""

from interpedia_autointerp.frozen.shelf import TaskShelf

__all__ = ["TaskShelf"]
