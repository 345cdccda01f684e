"""The README's section on live requests: what is compared with what, and what counts as missed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.inference.table import Figure, figures, section

LIVEZ = {"count": 100, "p50_s": 0.002, "p99_s": 0.01, "max_s": 0.02}


def spent(wall_s: float) -> dict[str, float]:
    return {"wall_s": wall_s, "cpu_s": wall_s / 2}


def pair(floor: float, ours: float) -> dict[str, Any]:
    return {"floor": spent(floor), "ours": spent(ours), "ratio": ours / floor, "ratio_cpu": ours / floor}


def waits(at_once: float, joining: float) -> dict[str, float]:
    return {
        "alone_s": 0.1,
        "at_once_s": 0.1 * at_once,
        "joining_s": 0.1 * joining,
        "at_once_ratio": at_once,
        "joining_ratio": joining,
    }


def result() -> dict[str, Any]:
    """Where everything is as wanted."""
    many = {"throughput_ratio": 0.9, "texts": 64, "livez": LIVEZ, "floor": spent(9), "ours": spent(10)}
    layers = ("7-res-3k", "15-res-3k", "23-res-3k")
    return {
        "machine": {
            "date": "2026-11-22",
            "cores": 2,
            "processor": "CPU",
            "memory_gib": 24,
            "load_average": [0.1, 0.1, 0.1],
            "python": "3.11.7",
            "versions": {"torch": "2.13.0"},
        },
        "threads": 1,
        "agreement": {"largest_value": 50.0, "largest_difference": 1e-4},
        "one_caller": {
            "64": {**pair(0.1, 0.11), "twenty": spent(0.11), "gateway": spent(0.12)},
            "128": pair(0.2, 0.22),
            "twenty_over_one": 1.0,
            "gateway_over_host": 1.1,
        },
        "same_text": {"first_s": 0.1, "all_s": 0.2, "ratio": 2.0},
        "by_layer": {name: spent(0.1) for sae in layers for name in (sae, f"floor {sae}")},
        "many_callers": {"8": many, "32": many},
        "short_texts": {
            "texts": 64,
            "livez": LIVEZ,
            **{callers: spent(4 / gain) for callers, gain in (("1", 1), ("8", 2.5), ("32", 3))},
            "gain_8": 2.5,
            "gain_32": 3.0,
        },
        "default_and_steered": {**pair(2.0, 2.2), "same_tokens": True},
        "together": {
            "together": spent(8),
            "in_turn": spent(28),
            "floor": spent(8),
            "ratio": 1.0,
            "gain": 3.5,
            "first_byte": waits(1.2, 1.1),
            "first_token": waits(5.0, 2.0),
            "livez": LIVEZ,
        },
        "memory": {"requests": 2000, "before_bytes": 1e9, "after_bytes": 1.01e9, "ratio": 1.01},
    }


def test_the_section_has_a_row_for_each_figure_and_says_that_all_holds() -> None:
    found = result()
    text = section(found)
    assert text.count("\n|") == len(figures(found)) + 1
    assert "All that was wanted holds." in text
    assert "missed" not in text
    assert "| memory after 2,000 mixed requests (floor: before them) | 1.00 GB | 1.01 GB |" in text


def test_what_is_missed_is_said_in_its_row_and_below() -> None:
    found = result()
    found["many_callers"]["32"] = {**found["many_callers"]["32"], "throughput_ratio": 0.7}
    found["together"]["first_byte"] = waits(3.1, 1.0)
    found["default_and_steered"]["same_tokens"] = False
    text = section(found)
    assert text.count("missed**") == 2
    assert "Missed: 32 callers, 64 tokens, layer 15, throughput" in text
    assert "first byte of a stream (floor: one caller): eight who come at once" in text.split("Missed: ")[1]
    assert "**other tokens**" in text


@pytest.mark.parametrize(
    ("value", "wanted", "is_at_least", "holds"),
    [(1.2, 1.25, False, True), (1.3, 1.25, False, False), (0.9, 0.85, True, True), (0.8, 0.85, True, False)],
)
def test_a_wish_is_a_bound(value: float, wanted: float, is_at_least: bool, holds: bool) -> None:
    assert Figure("x", "1 s", "2 s", value, wanted, is_at_least=is_at_least).holds is holds
