"""Answers of the search as they could be."""

from __future__ import annotations

from typing import Any

from interpedia_gateway import examples

FOUND: dict[str, Any] = {
    "items": [
        {
            **examples.NAME,
            "score": 0.032787,
            "matches": [
                {"by": "meaning", "rank": 1, "similarity": 0.7113},
                {"by": "tokens", "rank": 1, "similarity": None},
            ],
            "explanation": {
                "id": 17,
                "text": "rivers and lakes",
                "method": "human",
                "author": "owner",
                "is_default": True,
                "best_score": 0.91,
            },
            "density": 0.0041,
            "max_activation": 41.25,
            "top_logits": [{"id": 7212, "token": " river"}],
            "peak_tokens": [{"id": 7212, "token": " river"}],
        }
    ],
    "next_cursor": None,
    "query": "bodies of water",
    "mode": "hybrid",
    "embedding_model": "sentence-transformers/all-MiniLM-L6-v2",
    "note": None,
}
EMBEDDING_JOB: dict[str, Any] = {
    **examples.JOB,
    "kind": "embed",
}
