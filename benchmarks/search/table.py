"""The README's section on search."""

from __future__ import annotations

from typing import Any

from benchmarks.report import machine_line, markdown_table, megabytes, milliseconds, seconds

WANTED_P50_S, WANTED_P99_S, WANTED_RECALL = 0.015, 0.05, 0.98
QUIET = 2.0
"""Load average above which a figure says that it was taken beside other work."""
NAMES = {
    "hybrid": "hybrid, 8 callers, new queries",
    "filtered": "hybrid, 8 callers, new queries, filtered",
    "remembered": "hybrid, 8 callers, queries asked before ¹",
    "keyword": "keyword, 8 callers, new queries",
    "one": "hybrid, 1 caller without a pause, new queries",
    "remembered_closed": "hybrid, 8 callers without a pause, queries asked before ¹ ²",
    "filtered_closed": "hybrid, 8 callers without a pause, new queries, filtered ²",
}
JUDGED = ("hybrid", "filtered")


def section(result: dict[str, Any]) -> str:
    """A table of latencies, then what they are of."""
    rows = [
        [
            name,
            milliseconds(row["p50_s"]),
            milliseconds(row["p99_s"]),
            f"{row['per_s']:.3g}",
            f"{row['gateway_cpu_s'] * 1e3:.1f} + {row['server_cpu_s'] * 1e3:.1f} ms",
        ]
        for name, row in ((NAMES[key], result["rows"][key]) for key in NAMES if key in result["rows"])
    ]
    header = [
        f"search over {result['size']['n_explanations']:,} explanations", "p50", "p99", "per second",
        "CPU a search (gateway + Postgres)",
    ]  # fmt: skip
    return "\n\n".join((markdown_table(header, rows), _notes(result)))


def _notes(result: dict[str, Any]) -> str:
    loaded, recall = result["loaded"], result["recall"]
    return (
        f"Recall@20 of `semantic` against comparing all vectors: {recall['everywhere']:.3f}; with filters "
        f"{recall['filtered']:.3f}. {_verdict(result)}\n"
        "One gateway process, one Postgres with 1 GB of shared buffers, and the callers on the same cores. "
        "Callers pause for half a second on average between two searches; a new query is embedded by the "
        "gateway. Eight filters by turns, from half of all explanations to 1 %. Every kind of statement was "
        "planned by every connection before. Texts of two phrases each, vectors mixed from real ones of "
        "2,048 phrases.\n"
        f"Loaded in {seconds(loaded['copy_s'])}, its vectors indexed in {seconds(loaded['index_s'])} "
        f"({megabytes(loaded['index_bytes'])}; HNSW, m 16, ef_construction 128, half precision); one more "
        f"explanation takes {loaded['insert_ms']:.2g} ms with all indexes in place.\n"
        "¹ Their vectors are remembered. ² As fast as the cores can: latency is then 8 ÷ throughput.\n"
        f"{machine_line(result['machine'])}{_beside(result)}"
    )


def _verdict(result: dict[str, Any]) -> str:
    """What was wanted, and what falls short of it."""
    short = [
        f"{NAMES[key]}: {name} {milliseconds(result['rows'][key][field])}"
        for key in JUDGED
        for name, field, most in (("p50", "p50_s", WANTED_P50_S), ("p99", "p99_s", WANTED_P99_S))
        if result["rows"][key][field] > most
    ]
    short += [
        f"recall {name} {value:.3f}" for name, value in result["recall"].items() if value < WANTED_RECALL
    ]
    wanted = (
        f"Wanted: p50 ≤ {milliseconds(WANTED_P50_S)}, p99 ≤ {milliseconds(WANTED_P99_S)}, "
        f"recall ≥ {WANTED_RECALL}."
    )
    return f"{wanted} Short of it: {'; '.join(short)}." if short else f"{wanted} All of it holds."


def _beside(result: dict[str, Any]) -> str:
    most = max(result["load_before"], *(row["load"] for row in result["rows"].values()))
    if most <= QUIET + 1:
        return ""
    return f" The machine did other work meanwhile (load up to {most:.1f}), so wall times are much too long."
