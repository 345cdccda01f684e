"""The README's section on explanations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report import machine_line, markdown_table

WANTED_BUSY = 0.95
WANTED_RIGHT = 0.95


def section(result: dict[str, Any]) -> str:
    """Explainers by scorer; then what they cost, and what the scorers are worth."""
    parts = [_explainers(result["rules"])]
    if result.get("llm"):
        parts += [f"With an LLM ({result['llm']['model']}):", _explainers(result["llm"])]
    return "\n\n".join([*parts, _figures(result), _notes(result)])


def _explainers(found: Mapping[str, Any]) -> str:
    rows = [
        [
            row["method"],
            f"{scorer} ({row['metric'] or '–'})",
            str(row["n"]),
            _number(row["mean"]),
            f"{_number(row['ci_low'])} to {_number(row['ci_high'])}",
            _number(row["shuffled"]),
            _tokens(row["explain_tokens"]),
            _tokens(row["score_tokens"]),
        ]
        for scorer, table in found["tables"].items()
        for row in table
    ]
    header = [
        "explainer",
        "scorer",
        "features",
        "mean",
        "95 % over features",
        "another feature's text",
        "tokens to explain",
        "to score",
    ]
    return markdown_table(header, rows)


def _figures(result: dict[str, Any]) -> str:
    cost, calls, puzzles = result["cost"], result["in_flight"], result["puzzles"]
    many, own = cost["as_many_windows"], cost["frozen_tasks"]
    rows = [
        [
            "tokens of an explained and scored feature, as many windows as the peer's ¹",
            f"≤ {cost['peer'] // 2:,}",
            f"{many['tokens']:,.0f} ({many['tokens_with_baseline']:,.0f} with the shuffled baseline)",
        ],
        [
            "the same on the material that is frozen by default",
            "–",
            f"{own['tokens']:,.0f} ({own['tokens_with_baseline']:,.0f})",
        ],
        [
            "64 slots busy, endpoint answering in 200 ms",
            f"≥ {WANTED_BUSY:.0%}",
            f"{calls['busy']:.1%} ({calls['cpu_ms_per_call']:.1f} ms CPU a call)",
        ],
    ]
    rows += [
        [
            f"puzzles whose true explanation {name} puts first, judge wrong in 10 %",
            f"≥ {WANTED_RIGHT:.0%}",
            f"{found['right']:.0%} of {found['puzzles']}",
        ]
        for name, found in puzzles.items()
    ]
    return markdown_table(["figure", "wanted", "measured"], rows)


def _notes(result: dict[str, Any]) -> str:
    calls = result["in_flight"]
    notes = [
        "Frozen tasks of the demo's SAE of layer 15; `scrambled:` is the same material with the activations "
        "dealt out at random, a randomised SAE; `baseline:empty` says nothing, `baseline:same-token` says "
        "what the first explainer says of another feature that peaks on the same token.",
        "¹ 40 excerpts to explain, 50 + 50 windows for detection and for fuzzing, by 3.5 characters a token; "
        "the peer asks about five windows a call, and scores no baseline.",
        f"In flight: {calls['calls']:,} calls with budget and stored answers, the endpoint a process on the "
        f"same cores, load {calls['load']:.1f}; throughput was {calls['of_ideal_throughput']:.0%} of 320 "
        "calls a second. Fuzzing is held to the false explanations that it claims to see: too narrow, and "
        "effect not cause.",
    ]
    if calls["busy"] < WANTED_BUSY:
        notes.append(
            f"Short of it: slots were busy {calls['busy']:.1%} of the time, not {WANTED_BUSY:.0%}; caller, "
            "endpoint and database shared the cores with other work."
        )
    if result.get("llm") and "135" in str(result["llm"]["model"]):
        notes.append("A model of 135M parameters judges at chance: its rows show that the plumbing works.")
    if not result.get("llm"):
        notes.append("No LLM endpoint was configured: the table has the explainers that need none.")
    return "\n".join([*notes, machine_line(result["machine"])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
