"""The README's section on live requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.report import machine_line, markdown_table, megabytes, milliseconds, seconds, times

ONCE = 1.25
"""A text that is run once, whatever is read on it: so much more at most than for one feature."""
LAYERS = {"7-res-3k": 7, "15-res-3k": 15, "23-res-3k": 23}


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, what it is compared with, what was wanted."""

    what: str
    floor: str
    ours: str
    value: float | None
    wanted: float | None = None
    is_at_least: bool = False
    shown: str | None = None
    """Instead of the ratio."""

    @property
    def holds(self) -> bool:
        """Whether it is as wanted; with nothing wanted, always."""
        if self.wanted is None or self.value is None:
            return True
        return self.value >= self.wanted if self.is_at_least else self.value <= self.wanted

    def cells(self) -> list[str]:
        """Of the table."""
        ratio = self.shown or ("" if self.value is None else times(self.value))
        return [self.what, self.floor, self.ours, ratio, self._wish()]

    def _wish(self) -> str:
        if self.wanted is None:
            return ""
        sign = "≥" if self.is_at_least else "≤"
        unit = milliseconds(self.wanted) if self.shown else f"{self.wanted:g}×"
        return f"{sign} {unit}" if self.holds else f"**{sign} {unit}: missed**"


def figures(result: dict[str, Any]) -> list[Figure]:
    """All rows."""
    return [
        *_one_caller(result),
        *_layers(result["by_layer"]),
        *_many(result["many_callers"]),
        *_short(result["short_texts"]),
        *_steering(result),
        *_health(result),
        _memory(result["memory"]),
    ]


def section(result: dict[str, Any]) -> str:
    """A table and what it means."""
    header = ["", "floor", "Interpedia", "ratio", "wanted"]
    table = markdown_table(header, [one.cells() for one in figures(result)])
    return f"{table}\n\n{_notes(result)}"


def _one_caller(result: dict[str, Any]) -> list[Figure]:
    one, same = result["one_caller"], result["same_text"]
    rows: list[Figure] = []
    for length in ("64", "128"):
        pair = one[length]
        floor, ours = pair["floor"], pair["ours"]
        title = f"one caller, {length} tokens, a feature at layer 15"
        rows.append(Figure(f"{title}: p50", *_walls(floor, ours), pair["ratio"], 1.25))
        rows.append(Figure(f"{title}: CPU", *_cpus(floor, ours), pair["ratio_cpu"]))
    ours, twenty, through = (one["64"][side] for side in ("ours", "twenty", "gateway"))
    first, all_s = milliseconds(same["first_s"]), milliseconds(same["all_s"])
    return [
        *rows,
        Figure("… through the gateway ¹", *_walls(ours, through), one["gateway_over_host"]),
        Figure("… twenty features in one request ¹", *_walls(ours, twenty), one["twenty_over_one"], ONCE),
        Figure("… twenty features in twenty requests, together ¹", first, all_s, same["ratio"]),
    ]


def _layers(found: dict[str, Any]) -> list[Figure]:
    rows: list[Figure] = []
    for sae, layer in LAYERS.items():
        floor, ours = found[f"floor {sae}"], found[sae]
        title = f"one caller, 64 tokens, a feature at layer {layer}: p50"
        rows.append(Figure(title, *_walls(floor, ours), ours["wall_s"] / floor["wall_s"]))
    return rows


def _many(found: dict[str, Any]) -> list[Figure]:
    rows: list[Figure] = []
    for callers, pair in found.items():
        plain, ours = (_per_second(pair["texts"], pair[side]) for side in ("floor", "ours"))
        title = f"{callers} callers, 64 tokens, layer 15, throughput (floor: batches of {callers})"
        rows.append(Figure(title, plain, ours, pair["throughput_ratio"], 0.85, is_at_least=True))
    return rows


def _short(found: dict[str, Any]) -> list[Figure]:
    alone = _per_second(found["texts"], found["1"])
    return [
        Figure(
            f"{callers} callers, 16 tokens, layer 15, throughput (floor: one caller of ours)",
            alone,
            _per_second(found["texts"], found[callers]),
            found[f"gain_{callers}"],
            2.0,
            is_at_least=True,
        )
        for callers in ("8", "32")
    ]


def _steering(result: dict[str, Any]) -> list[Figure]:
    pair, eight = result["default_and_steered"], result["together"]
    floor, ours = pair["floor"], pair["ours"]
    title = "steering, default + steered, 32 tokens (floor: `generate`, two rows)"
    return [
        Figure(f"{title}: p50", *_walls(floor, ours), pair["ratio"], 1.15),
        Figure(f"{title}: CPU", *_cpus(floor, ours), pair["ratio_cpu"]),
        *_together(eight),
        *_first("first byte", eight["first_byte"], wanted=3.0),
        *_first("first token", eight["first_token"], wanted=None),
    ]


def _together(eight: dict[str, Any]) -> list[Figure]:
    title = "eight callers, eight interventions, 32 tokens"
    ours = eight["together"]
    in_turn, at_once = _walls(eight["in_turn"], ours)
    plain = _walls(eight["floor"], ours)
    return [
        Figure(f"{title} (floor: one after another)", in_turn, at_once, eight["gain"], 3.0, is_at_least=True),
        Figure(f"{title} (floor: `generate`, eight equal rows)", *plain, eight["ratio"]),
    ]


def _first(what: str, first: dict[str, float], *, wanted: float | None) -> list[Figure]:
    alone, burst, joining = (milliseconds(first[f"{name}_s"]) for name in ("alone", "at_once", "joining"))
    title = f"{what} of a stream (floor: one caller)"
    return [
        Figure(f"{title}: one who comes to seven that run", alone, joining, first["joining_ratio"], wanted),
        Figure(f"{title}: eight who come at once ²", alone, burst, first["at_once_ratio"], wanted),
    ]


def _health(result: dict[str, Any]) -> list[Figure]:
    beats = {
        "8 callers, 64 tokens": result["many_callers"]["8"]["livez"],
        "32 callers, 64 tokens": result["many_callers"]["32"]["livez"],
        "32 callers, 16 tokens": result["short_texts"]["livez"],
        "8 steering": result["together"]["livez"],
    }
    return [
        Figure(f"`/livez` p99 beside {who}", "", milliseconds(one["p99_s"]), one["p99_s"], 0.05, shown="–")
        for who, one in beats.items()
    ]


def _memory(found: dict[str, Any]) -> Figure:
    title = f"memory after {found['requests']:,} mixed requests (floor: before them)"
    before, after = megabytes(found["before_bytes"]), megabytes(found["after_bytes"])
    return Figure(title, before, after, found["ratio"], 1.05)


def _walls(floor: dict[str, float], ours: dict[str, float]) -> tuple[str, str]:
    return _time(floor["wall_s"]), _time(ours["wall_s"])


def _cpus(floor: dict[str, float], ours: dict[str, float]) -> tuple[str, str]:
    return _time(floor["cpu_s"]), _time(ours["cpu_s"])


def _time(value: float) -> str:
    return seconds(value) if value >= 1 else milliseconds(value)


def _per_second(count: int, spent: dict[str, float]) -> str:
    return f"{count / spent['wall_s']:.3g}/s"


def _notes(result: dict[str, Any]) -> str:
    agreement = result["agreement"]
    tokens = "the same tokens" if result["default_and_steered"]["same_tokens"] else "**other tokens**"
    threads = result["threads"]
    return (
        f"SmolLM2-135M-Instruct, float32, the three demo SAEs, {threads} torch "
        f"thread{'' if threads == 1 else 's'} on both sides, the same allocator settings. Ours: the "
        "inference service over HTTP, from text to JSON, every text new. Floor: plain `transformers` with "
        "the layers above the hook cut off, and the SAE's encoder in torch, from token ids to a tensor, "
        "timed inside its own process; or what the row says. By turns; medians; CPU: means of all threads of "
        "the process, callers not included.\n"
        "¹ The floor of this row is our own single request for one feature.\n"
        "² The first event says how the prompt was read, before anything is computed; the first token of "
        "eight prompts that come at once waits for the prompts that are run before it.\n"
        f"Same results: values differ by at most {agreement['largest_difference']:.2g} of "
        f"{agreement['largest_value']:.3g}; unsteered outputs are {tokens} as plain `generate`'s.\n"
        f"{_verdict(result)}\n"
        f"{machine_line(result['machine'])}"
    )


def _verdict(result: dict[str, Any]) -> str:
    missed = [one.what for one in figures(result) if not one.holds]
    return f"Missed: {'; '.join(missed)}." if missed else "All that was wanted holds."
