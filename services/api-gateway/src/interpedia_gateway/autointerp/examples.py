"""Answers of the autointerp API as they could be."""

from __future__ import annotations

from typing import Any

from interpedia_gateway import examples

_RUN = "0b8d7f8e-3f55-4a39-9d7e-0a6a2f1e9c11"
_AT = "2026-11-22T12:00:00Z"
ACCEPTED: dict[str, Any] = {
    "job": {
        **examples.JOB,
        "kind": "explain",
        "stage": "explain",
        "stages": ["explain", "embed"],
        "params": {"features": [examples.NAME["ref"]]},
    },
    "runs": {"explain:token-lookup": _RUN},
    "estimate": None,
}
_AMOUNTS = {"calls": 640, "tokens_low": 900000, "tokens_high": 1400000, "money_low": 0.12, "money_high": 0.31}
_EACH = {"calls": 7, "tokens_low": 9000, "tokens_high": 14000, "money_low": 0.0012, "money_high": 0.0031}
ESTIMATED: dict[str, Any] = {
    "job": None,
    "runs": {},
    "estimate": {
        "features": 100,
        "sampled": 8,
        "without_material": 0,
        "total": _AMOUNTS,
        "per_feature": _EACH,
    },
}
METHODS: dict[str, Any] = {
    "items": [
        {
            "name": "token-lookup",
            "kind": "explainer",
            "version": "1",
            "summary": "The tokens that carry most of the feature's activation.",
            "needs": [],
            "prompt": None,
            "params": {"type": "object", "properties": {}},
        }
    ]
}
ENDPOINT: dict[str, Any] = {
    "name": "default",
    "base_url": "https://llm.example/v1",
    "model": "gpt-5-nano",
    "has_key": True,
    "price_in": 0.05,
    "price_cached": 0.005,
    "price_out": 0.4,
    "concurrency": 32,
    "capabilities": {"json_schema": True},
    "probed_at": _AT,
}
ENDPOINTS: dict[str, Any] = {"items": [ENDPOINT]}
RUN: dict[str, Any] = {
    "id": _RUN,
    "kind": "explain",
    "method": "token-lookup",
    "method_version": "1",
    "params": {},
    "provenance": {"code_version": "0.1.0"},
    "job": examples.JOB["id"],
    "created_at": _AT,
    "explanations": 100,
    "scores": 0,
    "spent": {
        "calls": 0,
        "paid_calls": 0,
        "tokens_in": 0,
        "tokens_cached": 0,
        "tokens_out": 0,
        "money": 0.0,
    },
    "texts": [],
}
