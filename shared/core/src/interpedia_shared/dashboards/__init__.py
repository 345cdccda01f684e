"""What is stored of a feature, and the one codec that writes and reads it."""

from interpedia_shared.dashboards.codec import (
    CorruptBlob,
    decode_examples,
    decode_stats,
    encode_examples,
    encode_stats,
)
from interpedia_shared.dashboards.model import (
    HISTOGRAM_BINS,
    N_INTERVALS,
    REASON_RANDOM,
    REASON_TOP,
    Coactive,
    Examples,
    FeatureStats,
    Histogram,
    Ranked,
)

__all__ = [
    "HISTOGRAM_BINS",
    "N_INTERVALS",
    "REASON_RANDOM",
    "REASON_TOP",
    "Coactive",
    "CorruptBlob",
    "Examples",
    "FeatureStats",
    "Histogram",
    "Ranked",
    "decode_examples",
    "decode_stats",
    "encode_examples",
    "encode_stats",
]
