"""Answers of the live routes as they could be. A test holds each against its schema."""

from __future__ import annotations

from typing import Any

from interpedia_gateway.examples import INDEX, JOB, MODEL, NAME, SAE

_HOOK = "blocks.15.hook_resid_post"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_AT = "2026-11-22T12:00:00Z"
_SOURCE: dict[str, Any] = {"sae": SAE, "hook": _HOOK, "weights_sha256": _DIGEST, "version": 12}
_TIMINGS = {"tokenize_ms": 0.5, "queue_ms": 0.25, "run_ms": 62.5, "total_ms": 64.0}
_TOKENS: dict[str, Any] = {
    "tokens": ["<|im_start|>", "She", " said", " that"],
    "token_ids": [1, 6102, 1137, 338],
}
_VALUES = [None, 12.5, 0.0, 0.75]


def _answer(*saes: dict[str, Any], **members: Any) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "model": MODEL,
        "revision": None,
        "weights_sha256": _DIGEST,
        "dtype": "float32",
        "device": "cpu",
        "bos": "prepended",
        "saes": list(saes),
        "code_version": "0.1.0",
    }
    return {"timings": _TIMINGS, "provenance": provenance, **members}


SERVED: dict[str, Any] = {
    "model": MODEL,
    "ready": True,
    "hosts": {"ready": 1},
    "queue_depth": 0,
    "dtype": "float32",
    "device": "cpu",
    "limits": {
        "max_tokens_per_text": 2048,
        "max_new_tokens": 1024,
        "max_batch_tokens": 4096,
        "max_queue": 64,
        "deadline_s": 60.0,
    },
    "detail": None,
}
TOKENIZE = _answer(**_TOKENS, count=4, limit=2048, is_cut=False)
ACTIVATIONS = _answer(
    _SOURCE,
    results=[
        {
            **_TOKENS,
            "features": [{**NAME, "values": _VALUES, "max": 12.5, "max_position": 1, "max_token": "She"}],
            "vectors": [],
            "saes": [
                {
                    "sae": SAE,
                    "positions": [1, 1, 3],
                    "features": [INDEX, 1204, INDEX],
                    "values": [12.5, 3.0, 0.75],
                }
            ],
        }
    ],
)
TOP = _answer(
    _SOURCE,
    **_TOKENS,
    results=[
        {
            **NAME,
            "value": 12.5,
            "position": 1,
            "token": "She",
            "density": 0.0041,
            "max_activation": 41.25,
            "explanation": "women and girls",
            "values": None,
        }
    ],
    by_token=None,
)
_DEFAULT: dict[str, Any] = {
    "text": " the dog",
    "tokens": [" the", " dog"],
    "token_ids": [260, 3394],
    "logprobs": [-1.5, -2.25],
    "top_logprobs": None,
    "finish_reason": "length",
}
_STEERED: dict[str, Any] = {
    **_DEFAULT,
    "text": " the river",
    "tokens": [" the", " river"],
    "token_ids": [260, 7212],
    "logprobs": [-1.75, -3.5],
}
STEER = _answer(
    _SOURCE,
    prompt_tokens=["<|im_start|>", "My", " favourite", " animal", " is"],
    prompt_token_ids=[1, 4220, 13852, 3926, 314],
    default=_DEFAULT,
    steered=_STEERED,
    shared=None,
)
STEER_EVENTS = (
    'event: start\ndata: {"prompt_tokens":["<|im_start|>","My"],"prompt_token_ids":[1,4220]}\n\n'
    'event: token\ndata: {"output":"steered","position":0,"token_id":260,"token":" the","logprob":-1.75,'
    '"top":null,"text":" the"}\n\n'
    "event: done\ndata: (the whole answer)\n\n"
)
SHARED: dict[str, Any] = {
    "id": "q3Xk0m9cQ0yJ2v6r1s8T4w",
    "model": MODEL,
    "created_at": _AT,
    "request": {
        "model": MODEL,
        "prompt": "My favourite animal is",
        "interventions": [{"sae": SAE, "feature": INDEX, "method": "add", "strength": 1.0}],
        "seed": 0,
    },
    "answer": {name: value for name, value in STEER.items() if name != "shared"},
}
_SHIFT: dict[str, Any] = {
    "token_id": 7212,
    "token": " river",
    "logit_default": 14.5,
    "logit_ablated": 15.75,
    "logprob_default": -3.5,
    "logprob_ablated": -2.25,
}
ABLATE = _answer(
    _SOURCE,
    **_TOKENS,
    loss_default=3.25,
    loss_ablated=3.5,
    kl_mean=0.0625,
    by_token=[
        {
            "position": 1,
            "token": "She",
            "next_token": " said",
            "loss_default": 2.5,
            "loss_ablated": 3.0,
            "kl": 0.125,
        }
    ],
    position=3,
    metric={
        "default": 2.5,
        "ablated": 0.5,
        "change": -2.0,
        "logits_default": {" her": 16.5, " his": 14.0},
        "logits_ablated": {" her": 15.25, " his": 14.75},
    },
    rose=[_SHIFT],
    fell=[{**_SHIFT, "token_id": 874, "token": " her", "logit_default": 16.5, "logit_ablated": 15.25}],
    n_positions_changed=1,
)
ATTRIBUTE = _answer(
    _SOURCE,
    **_TOKENS,
    position=3,
    metric=2.5,
    metric_corrupt=None,
    results=[
        {
            **NAME,
            "attribution": 1.75,
            "by_position": [0.0, 1.5, 0.0, 0.25],
            "max_activation_here": 12.5,
            "exact": 2.0,
            "explanation": "women and girls",
        }
    ],
)
LENS = _answer(
    **_TOKENS,
    positions=[3],
    layers=[
        {
            "layer": 15,
            "hook": _HOOK,
            "cells": [
                {
                    "token_ids": [874, 704],
                    "tokens": [" her", " she"],
                    "probabilities": [0.25, 0.125],
                    "entropy": 4.5,
                    "next_token_rank": None,
                    "next_token_probability": None,
                }
            ],
        }
    ],
)
TEMPLATE: dict[str, Any] = {
    "id": "gendered-pronoun",
    "title": "Gendered pronoun",
    "description": "So Mary is a nurse, isn't → she",
    "source": None,
}
SEARCH_JOB: dict[str, Any] = {
    **JOB,
    "kind": "prompt_search",
    "state": "queued",
    "stage": "search",
    "stages": ["search"],
    "done": 0,
    "total": 100,
    "started_at": None,
    "params": {"model": MODEL, "saes": [SAE], "template": "gendered-pronoun", "n": 32},
    "tasks": {"waiting": 0, "queued": 1, "running": 0, "done": 0, "dead": 0, "cancelled": 0},
}
