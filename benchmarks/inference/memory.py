"""Memory of the host over thousands of requests of all kinds, bad ones and hang-ups among them."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.inference.bench import SAE, Bench, request
from benchmarks.inference.callers import Errand, crowd
from benchmarks.latency import BadAnswer, KeepAlive

LOG = logging.getLogger("bench.inference")
CALLERS = 8
WORDS = (
    *("river", "music", "seven", "cold", "letters", "garden", "under", "the", "old", "bridge", "she", "said"),
    *(
        "that",
        "machines",
        "cannot",
        "swim",
        "and",
        "nobody",
        "asked",
        "why",
        "in",
        "winter",
        "paper",
        "burns",
    ),
)
FEATURES = 3072
Kind = Callable[[np.random.Generator], tuple[str, dict[str, Any]]]


def _text(random: np.random.Generator, most: int = 12) -> str:
    return " ".join(random.choice(WORDS, int(random.integers(3, most))))


def _feature(random: np.random.Generator, sae: str = SAE) -> dict[str, Any]:
    return {"sae": sae, "feature": int(random.integers(FEATURES))}


def _activations(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    sae = str(random.choice(["7-res-3k", SAE]))
    return "/v1/activations", {"texts": [_text(random)], "features": [_feature(random, sae)]}


def _sparse(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return "/v1/activations", {"texts": [_text(random), _text(random)], "saes": ["7-res-3k"]}


def _top(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return "/v1/activations/top", {"text": _text(random), "saes": ["7-res-3k"], "k": 5}


def _tokenize(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return "/v1/tokenize", {"text": _text(random, 40)}


def _steer(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    change = {**_feature(random), "strength": 5, "unit": "raw"}
    return "/v1/steer", {
        "prompt": _text(random, 6),
        "interventions": [change],
        "max_new_tokens": int(random.integers(1, 4)),
        "outputs": ["steered"],
        "stream": bool(random.integers(2)),
    }


def _ablate(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return "/v1/ablate", {"text": _text(random, 6), "features": [_feature(random)], "k": 2}


def _lens(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return "/v1/lens", {"text": _text(random, 6), "layers": [3], "positions": [1], "k": 2}


def _attribute(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    metric = {"good": [" her"], "bad": [" his"]}
    return "/v1/attribute", {"text": _text(random, 5), "saes": [SAE], "metric": metric, "k": 3, "exact": 0}


def _refused(random: np.random.Generator) -> tuple[str, dict[str, Any]]:
    at = {"sae": SAE, "feature": FEATURES + int(random.integers(100))}
    return "/v1/activations", {"texts": [_text(random)], "features": [at]}


KINDS: dict[str, tuple[Kind, float]] = {
    "activations": (_activations, 0.38),
    "tokenize": (_tokenize, 0.2),
    "top": (_top, 0.1),
    "sparse": (_sparse, 0.06),
    "steer": (_steer, 0.08),
    "ablate": (_ablate, 0.04),
    "lens": (_lens, 0.04),
    "attribute": (_attribute, 0.02),
    "refused": (_refused, 0.04),
    "hang up": (_steer, 0.04),
}
REFUSED_STATUS = 404


def measure(bench: Bench) -> dict[str, Any]:
    """Resident memory after a warm-up, and after all requests."""
    warm_up, count = bench.sizes.mixed_warm_up, bench.sizes.mixed
    random = np.random.default_rng(9)
    with crowd(bench.host.base, CALLERS) as people:
        people.wave(_errands(random, warm_up)[0])
        before = bench.host.memory()
        errands, kinds = _errands(random, count)
        halfway = count // 2
        began = time.perf_counter()
        people.wave(errands[:halfway])
        middle = bench.host.memory()
        people.wave(errands[halfway:])
        wall_s = time.perf_counter() - began
    after = bench.host.memory()
    found = {
        "requests": count,
        "kinds": dict(kinds),
        "wall_s": wall_s,
        "before_bytes": before,
        "halfway_bytes": middle,
        "after_bytes": after,
        "ratio": after / before,
    }
    LOG.info("memory: %s", json.dumps(found))
    return found


def _errands(random: np.random.Generator, count: int) -> tuple[Sequence[Errand[None]], Counter[str]]:
    names = list(KINDS)
    shares = np.array([share for _, share in KINDS.values()])
    chosen = [names[one] for one in random.choice(len(names), count, p=shares / shares.sum())]
    return [_errand(name, *KINDS[name][0](random)) for name in chosen], Counter(chosen)


def _errand(name: str, path: str, body: dict[str, Any]) -> Errand[None]:
    wanted = REFUSED_STATUS if name == "refused" else 200

    def ask(client: KeepAlive) -> None:
        if name == "hang up":
            client.hang_up(path, request({**body, "max_new_tokens": 64, "stream": True}))
            return
        answer = client.send(path, request(body))
        if answer.status != wanted:
            raise BadAnswer(f"POST {path}: {answer.status} {answer.body[:300]!r}")

    return ask
