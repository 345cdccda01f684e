"""What features do to what a model says: ablation, attribution, exact effects, the logit lens.

Everything long is a generator of `Progress` that returns its result (`finish` runs one to the end). Models
must have been loaded outside `torch.inference_mode`: gradients pass through them.
"""

from interpedia_engine.effects.ablation import (
    Ablated,
    AblationPlan,
    AblationResult,
    MetricChange,
    Shift,
    ablate,
)
from interpedia_engine.effects.attribution import Attributed, AttributionPlan, AttributionResult, attribute
from interpedia_engine.effects.cases import Case, Dictionary, FeatureKey, Metric
from interpedia_engine.effects.exact import exact_effects
from interpedia_engine.effects.lens import LensCell, LensLayer, LensPlan, read_lens
from interpedia_engine.effects.steps import Pace, Progress, Steps, finish

__all__ = [
    "Ablated",
    "AblationPlan",
    "AblationResult",
    "Attributed",
    "AttributionPlan",
    "AttributionResult",
    "Case",
    "Dictionary",
    "FeatureKey",
    "LensCell",
    "LensLayer",
    "LensPlan",
    "Metric",
    "MetricChange",
    "Pace",
    "Progress",
    "Shift",
    "Steps",
    "ablate",
    "attribute",
    "exact_effects",
    "finish",
    "read_lens",
]
