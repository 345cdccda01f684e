"""Changing what is inside a model while it runs: per feature or along a direction, per row of a batch."""

from interpedia_engine.interventions.changes import (
    Change,
    DirectionChange,
    FeatureChange,
    Method,
    Positions,
    RowChanges,
    check_change,
)
from interpedia_engine.interventions.edits import EditPlan, edited
from interpedia_engine.interventions.splice import decoder_rows_of, feature_delta, read_features, token_scale
from interpedia_engine.interventions.window import Window

__all__ = [
    "Change",
    "DirectionChange",
    "EditPlan",
    "FeatureChange",
    "Method",
    "Positions",
    "RowChanges",
    "Window",
    "check_change",
    "decoder_rows_of",
    "edited",
    "feature_delta",
    "read_features",
    "token_scale",
]
