"""The README's section on storage."""

from __future__ import annotations

from typing import Any

from benchmarks.report import machine_line, markdown_table, megabytes, milliseconds, seconds, times

WANTED_SMALLER = 20
WANTED_FASTER = 50
PACKING = "Packing is a hundred or so numpy calls a feature, on arrays of 10 to 240 numbers."


def section(result: dict[str, Any]) -> str:
    """Two tables: what storing costs, how fast it is read."""
    return "\n\n".join((_storing(result), _reading(result), _notes(result)))


def _storing(result: dict[str, Any]) -> str:
    ours, other, ratios = result["ours"], result["per_example_whole"], result["ratios"]
    rows = [
        ["size with indexes", megabytes(other["bytes"]), megabytes(ours["bytes"]), times(ratios["bytes"])],
        [
            "loading (COPY only), wall",
            seconds(other["copy_s"]),
            seconds(ours["copy_s"]),
            times(ratios["copy_s"]),
        ],
        [
            "loading with packing, CPU",
            seconds(other["cpu_s"]),
            seconds(ours["cpu_s"]),
            times(ratios["cpu_s"]),
        ],
        [
            "loading with packing, wall",
            seconds(other["seconds"]),
            seconds(ours["seconds"]),
            times(ratios["seconds"]),
        ],
    ]
    title = (
        f"{result['shape']['n_features']:,} features × {result['shape']['n_examples']} examples × 128 tokens"
    )
    return markdown_table([title, "a row per example ¹", "Interpedia", "ratio"], rows)


def _reading(result: dict[str, Any]) -> str:
    rows = [
        ["dashboard through the gateway", *_both(result["dashboards"])],
        ["dashboard, SQL + codec + JSON only", *_both(result["lookup"])],
        ["dashboard, a row per example, SQL + JSON only", *_both(result["per_example_lookup"])],
        ["features that promote a token", *_both(result["promotes"])],
    ]
    for page, latency in result["lists"].items():
        rows.append([f"list by density with filters, page {int(page):,}", *_both(latency)])
    return markdown_table(["reading", "p50", "p99"], rows)


def _both(latency: dict[str, Any]) -> list[str]:
    return [milliseconds(latency["p50_s"]), milliseconds(latency["p99_s"])]


def _notes(result: dict[str, Any]) -> str:
    part = result["per_example"]["n_features"]
    return (
        "Synthetic: 12 SAEs, 24,576 contexts with Zipf's token frequencies, on average 12 active tokens an "
        "example; one Postgres with the settings of `make run`, one client, one connection a "
        "schema, loaded by turns. CPU: the client's and its backend's.\n"
        f"¹ {part:,} of the same features were loaded and multiplied; "
        "in truth loading slows down as indexes grow.\n"
        f"{_verdict(result['ratios'])}\n"
        f"{machine_line(result['machine'])}"
    )


def _verdict(ratios: dict[str, float]) -> str:
    """What was wanted, and what falls short of it."""
    wanted = {
        "bytes": ("size", WANTED_SMALLER),
        "copy_s": ("COPY", WANTED_FASTER),
        "seconds": ("COPY with packing, wall", WANTED_FASTER),
        "cpu_s": ("COPY with packing, CPU", WANTED_FASTER),
    }
    short = [
        f"{name}, is {times(ratios[key])}" for key, (name, least) in wanted.items() if ratios[key] < least
    ]
    found = f"Short of it: {'; '.join(short)}. {PACKING}" if short else "All of it holds, packing included."
    return f"Wanted: {WANTED_SMALLER}× smaller, {WANTED_FASTER}× faster to load. {found}"
