"""The live model, as explanations need it."""

from interpedia_autointerp.live.backend import LiveBackend

__all__ = ["LiveBackend"]
