"""Which features an order is about."""

from interpedia_autointerp.targets.repository import Target, chosen_features

__all__ = ["Target", "chosen_features"]
