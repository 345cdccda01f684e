"""Sparse autoencoders: the checked intake of their files, and encode and decode.

`config` and `files` need no torch; the classes and `load_sae` are imported when first named, because they do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from interpedia_engine.saes.config import SAEConfig, parse_config
from interpedia_engine.saes.files import SAEInfo, check_sae, read_header

if TYPE_CHECKING:
    from interpedia_engine.saes.base import SAE, NonZero, prepare_input
    from interpedia_engine.saes.identity import IdentitySAE, identity_sae
    from interpedia_engine.saes.loading import load_sae
    from interpedia_engine.saes.tiny import tiny_sae

__all__ = [
    "SAE",
    "IdentitySAE",
    "NonZero",
    "SAEConfig",
    "SAEInfo",
    "check_sae",
    "identity_sae",
    "load_sae",
    "parse_config",
    "prepare_input",
    "read_header",
    "tiny_sae",
]

_WITH_TORCH = {
    "NonZero": "base",
    "SAE": "base",
    "prepare_input": "base",
    "IdentitySAE": "identity",
    "identity_sae": "identity",
    "load_sae": "loading",
    "tiny_sae": "tiny",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
