"""What the dashboards' builds found out about features: density, maximum and mean."""

from interpedia_inference.stored.numbers import FeatureNumbers, StoredColumns, StoredNumbers

__all__ = ["FeatureNumbers", "StoredColumns", "StoredNumbers"]
