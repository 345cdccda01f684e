"""Loading language models.

`ModelSource` needs no torch; `load_model` and `LanguageModel` are imported when first named, because they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interpedia_engine.models.source import ModelSource

if TYPE_CHECKING:
    from interpedia_engine.models.checks import self_check
    from interpedia_engine.models.language_model import LanguageModel
    from interpedia_engine.models.loading import load_model

__all__ = ["LanguageModel", "ModelSource", "load_model", "self_check"]


def __getattr__(name: str) -> Any:
    if name == "LanguageModel":
        from interpedia_engine.models.language_model import LanguageModel

        return LanguageModel
    if name == "load_model":
        from interpedia_engine.models.loading import load_model

        return load_model
    if name == "self_check":
        from interpedia_engine.models.checks import self_check

        return self_check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
