"""Prompt templates, and the search for the features that carry a model's answer on them.

The language, the library and their errors need no torch; rendering and searching do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from interpedia_engine.templates.language import Template
from interpedia_engine.templates.library import bundled, bundled_ids, find_template, parse_template

if TYPE_CHECKING:
    from interpedia_engine.templates.rendering import Prompt, Rendered, render
    from interpedia_engine.templates.search import SearchPlan, default_controls, search_template

__all__ = [
    "Prompt",
    "Rendered",
    "SearchPlan",
    "Template",
    "bundled",
    "bundled_ids",
    "default_controls",
    "find_template",
    "parse_template",
    "render",
    "search_template",
]

_WITH_TORCH = {
    "Prompt": "rendering",
    "Rendered": "rendering",
    "render": "rendering",
    "SearchPlan": "search",
    "default_controls": "search",
    "search_template": "search",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
