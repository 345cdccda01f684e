"""What Prometheus sees of the live routes, besides what every service counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)

PHASES = Histogram(
    "interpedia_live_seconds", "Time of a request by phase.", ["route", "phase"], buckets=_SECONDS
)
"""Phases: tokenize, queue (admission to the start of the computation), run."""
SLICES = Histogram(
    "interpedia_compute_slice_seconds",
    "Time the compute thread spends at a stretch.",
    ["kind"],
    buckets=_SECONDS,
)
BATCH_ROWS = Histogram("interpedia_batch_rows", "Rows of one forward pass.", ["kind"], buckets=_ROWS)
BATCH_TOKENS = Histogram(
    "interpedia_batch_tokens", "Positions of one forward pass, padding included.", ["kind"], buckets=_TOKENS
)
TOKENS = Counter("interpedia_tokens_total", "Tokens computed, without padding.", ["kind"])
REFUSED = Counter("interpedia_refused_total", "Requests refused at admission.", ["what"])
ENDED = Counter("interpedia_ended_total", "Requests ended before they were done.", ["why"])
QUEUE_DEPTH = Gauge("interpedia_queue_depth", "Requests waiting or running.")
QUEUE_TOKENS = Gauge("interpedia_queue_tokens", "Tokens of the requests waiting or running.")
SAE_BYTES = Gauge("interpedia_sae_bytes", "Memory that loaded SAEs take.")
SAE_LOADS = Counter("interpedia_sae_loads_total", "SAEs loaded, and let go of.", ["event"])
