"""Steering: one caller, eight together, and when the first byte comes."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import orjson

from benchmarks.inference.bench import SAE, Bench, request
from benchmarks.inference.callers import Crowd, Errand, Pulse, crowd, pulse, spent_by
from benchmarks.inference.texts import Text
from benchmarks.inference.turns import Spent, by_turns, compared
from benchmarks.latency import BadAnswer, KeepAlive

LOG = logging.getLogger("bench.inference")
STEER = "/v1/steer"
NEW_TOKENS = 32
PROMPT_TOKENS = 24
CALLERS = 8
STAGGER_S = 0.35
_TOKEN = b"event: token"
_WIDTH = 576
_TRIES = 12


def interventions() -> list[dict[str, Any]]:
    """Eight of different kinds, at three layers."""
    random = np.random.default_rng(8)
    vectors = [(random.normal(size=_WIDTH) / _WIDTH**0.5).tolist() for _ in range(2)]
    hook = "blocks.15.hook_resid_post"
    return [
        {"sae": SAE, "feature": 1071, "method": "add", "strength": 8, "unit": "raw"},
        {"sae": "7-res-3k", "feature": 10, "method": "add", "strength": 4, "unit": "raw"},
        {"sae": SAE, "feature": 650, "method": "clamp", "strength": 6, "unit": "raw"},
        {"sae": SAE, "feature": 42, "method": "ablate"},
        {"sae": "23-res-3k", "feature": 7, "method": "scale", "strength": 2},
        {"sae": SAE, "feature": 100, "method": "orthogonal"},
        {"vector": vectors[0], "hook": hook, "method": "add", "strength": 4},
        {"vector": vectors[1], "hook": hook, "method": "project_cap", "strength": 1},
    ]


def body(text: Text, change: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A steering request that says the same every time."""
    return {
        "prompt": text.text,
        "interventions": [change],
        "temperature": 0,
        "max_new_tokens": NEW_TOKENS,
        **more,
    }


@dataclass(frozen=True)
class Streamed:
    """A stream that was read to its end."""

    first_byte_s: float
    first_token_s: float
    n_tokens: int


def stream(asked: dict[str, Any], *, wait_s: float = 0.0) -> Errand[Streamed]:
    """An errand that reads a stream of the steered output, after a while."""
    raw = request({**asked, "outputs": ["steered"], "stream": True})

    def read(client: KeepAlive) -> Streamed:
        time.sleep(wait_s)
        answer = client.send(STEER, raw, mark=_TOKEN)
        last = answer.body.rsplit(b"event: ", 1)[1]
        if answer.status != 200 or not last.startswith(b"done\n"):
            raise BadAnswer(f"POST {STEER}: {answer.status} {last[:300]!r}")
        said = orjson.loads(last.split(b"data: ", 1)[1])
        return Streamed(answer.first_byte_s, answer.mark_s, len(said["steered"]["token_ids"]))

    return read


def default_and_steered(bench: Bench) -> dict[str, Any]:
    """32 tokens of both outputs, against plain `generate` of two rows."""
    prompts, agrees = _lasting_prompts(bench, min(3, bench.sizes.pairs))
    change = interventions()[0]

    def ours(number: int) -> Spent:
        return bench.timed_post(STEER, body(prompts[number % len(prompts)], change))

    def floor(number: int) -> Spent:
        ids = prompts[number % len(prompts)].ids
        return bench.floor.generate(ids, rows=2, new_tokens=NEW_TOKENS)[0]

    spent = by_turns({"ours": ours, "floor": floor}, bench.sizes.pairs)
    found = {**compared(spent, "ours", "floor"), "same_tokens": agrees}
    LOG.info("default and steered: %s", json.dumps(found))
    return found


def _lasting_prompts(bench: Bench, count: int) -> tuple[list[Text], bool]:
    """Prompts whose outputs do not end early; and whether the default ones are plain `generate`'s."""
    found: list[Text] = []
    agrees = True
    for _ in range(_TRIES):
        (text,) = bench.texts.deal(1, PROMPT_TOKENS)
        said = bench.asked(STEER, body(text, interventions()[0]))
        if any(said[name]["finish_reason"] != "length" for name in ("default", "steered")):
            continue
        _, plain = bench.floor.generate(text.ids, rows=2, new_tokens=NEW_TOKENS)
        agrees = agrees and plain == said["default"]["token_ids"]
        found.append(text)
        if len(found) == count:
            return found, agrees
    raise ValueError(f"{_TRIES} prompts gave no {count} outputs of {NEW_TOKENS} tokens")


def together(bench: Bench) -> dict[str, Any]:
    """Eight callers with eight interventions at once and one after another; and when first bytes come."""
    beats = Pulse()
    waves: list[list[Streamed]] = []
    queues: list[list[Streamed]] = []
    with crowd(bench.host.base, CALLERS) as people:
        bodies = _lasting_bodies(bench, people)
        errands = [stream(one) for one in bodies]

        def at_once(_: int) -> Spent:
            with pulse(bench.host.base, beats):
                streams, spent = spent_by(bench.host, lambda: people.wave(errands))
            waves.append(streams)
            return spent

        def in_turn(_: int) -> Spent:
            streams, spent = spent_by(bench.host, lambda: [read(bench.client) for read in errands])
            queues.append(streams)
            return spent

        def floor(_: int) -> Spent:
            ids = bench.texts.ids_of(bodies[0]["prompt"])
            return bench.floor.generate(ids, rows=CALLERS, new_tokens=NEW_TOKENS)[0]

        sides = {"together": at_once, "in_turn": in_turn, "floor": floor}
        spent = by_turns(sides, bench.sizes.together_rounds)
        with pulse(bench.host.base, beats):
            staggered = _staggered(bench, people, bodies)
    found = compared(spent, "together", "floor")
    found["gain"] = found["in_turn"]["wall_s"] / found["together"]["wall_s"]
    streams = {
        "alone": [one for queue in queues for one in queue],
        "at_once": [one for wave in waves for one in wave],
        "joining": staggered,
    }
    found["first_byte"] = _first(streams, attrgetter("first_byte_s"))
    found["first_token"] = _first(streams, attrgetter("first_token_s"))
    found["livez"] = beats.summary()
    LOG.info("eight together: %s", json.dumps(found))
    return found


def _lasting_bodies(bench: Bench, people: Crowd) -> list[dict[str, Any]]:
    """One request for each intervention, with a prompt whose output does not end early."""
    changes = interventions()
    lasting: dict[int, dict[str, Any]] = {}
    for _ in range(_TRIES):
        missing = [number for number in range(len(changes)) if number not in lasting]
        texts = bench.texts.deal(len(missing), PROMPT_TOKENS)
        bodies = [body(text, changes[number]) for text, number in zip(texts, missing, strict=True)]
        for number, asked, said in zip(missing, bodies, people.wave([*map(stream, bodies)]), strict=True):
            if said.n_tokens == NEW_TOKENS:
                lasting[number] = asked
        if len(lasting) == len(changes):
            return [lasting[number] for number in range(len(changes))]
    raise ValueError(f"{_TRIES} prompts gave no output of {NEW_TOKENS} tokens for some intervention")


def _staggered(bench: Bench, people: Crowd, bodies: Sequence[dict[str, Any]]) -> list[Streamed]:
    """Callers who come one by one and begin anew when they are done; those who come to a full house."""
    errands: list[Errand[Streamed]] = []
    for number in range(CALLERS + bench.sizes.staggered):
        wait_s = number * STAGGER_S if number < CALLERS else 0.0
        errands.append(stream(bodies[number % len(bodies)], wait_s=wait_s))
    return people.wave(errands)[CALLERS:]


def _first(
    streams: Mapping[str, Sequence[Streamed]], seconds: Callable[[Streamed], float]
) -> dict[str, float]:
    """Medians of each kind of caller, and how many times longer they wait than one who is alone."""
    middle = {name: statistics.median(map(seconds, some)) for name, some in streams.items()}
    return {
        **{f"{name}_s": value for name, value in middle.items()},
        **{f"{name}_ratio": middle[name] / middle["alone"] for name in middle if name != "alone"},
    }
