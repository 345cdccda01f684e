"""Answers about explanations as they could be."""

from __future__ import annotations

from typing import Any

from interpedia_gateway import examples

_RUN = "0b8d7f8e-3f55-4a39-9d7e-0a6a2f1e9c11"
_AT = "2026-11-22T12:00:00Z"
SCORE: dict[str, Any] = {
    "scorer": "detection",
    "metric": "balanced_accuracy",
    "value": 0.91,
    "ci_low": 0.86,
    "ci_high": 0.95,
    "n": 100,
    "baseline": 0.51,
    "judge": "default: gpt-5-nano",
    "id": 204,
    "is_headline": True,
    "stratum": "all",
    "status": "ok",
    "n_failed": 1,
    "n_abstained": 0,
    "split_hash": "9d2f0c4b7a11e6d8f35c21b4a7e0936c5d8841f2ab6093e7c41d58b2f6a07e93",
    "details": {"population_precision": 0.74},
    "run": _RUN,
    "created_at": _AT,
}
EXPLANATION: dict[str, Any] = {
    **examples.NAME,
    "id": 17,
    "text": "rivers and lakes",
    "method": "human",
    "author": "owner",
    "is_default": True,
    "best_score": 0.91,
    "hypothesis": {"role": "input"},
    "embedding_model": "sentence-transformers/all-MiniLM-L6-v2",
    "run": None,
    "created_at": _AT,
    "scores": [SCORE],
}
DETAIL: dict[str, Any] = {
    **EXPLANATION,
    "verdicts": [
        {
            "scorer": "detection",
            "subject": "explanation",
            "item": "w12",
            "stratum": "near_miss",
            "truth": False,
            "state": "ok",
            "verdict": False,
            "probability": 0.04,
            "run": _RUN,
        }
    ],
    "n_verdicts": 1,
}
