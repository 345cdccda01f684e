"""The README's section on dashboards."""

from __future__ import annotations

from typing import Any

from benchmarks.report import machine_line, markdown_table, megabytes, seconds, times


def section(result: dict[str, Any]) -> str:
    """A table of all runs and what it means."""
    rows = [row for run in result["runs"] for row in _rows(run)]
    forward = result["forward"]
    table = markdown_table(["", "SAEDashboard 0.8.0", "Interpedia", "ratio"], [*rows, _forward_row(forward)])
    return f"{table}\n\n{_notes(result)}"


def _rows(run: dict[str, Any]) -> list[list[str]]:
    ours, peer, ratios = run["ours"], run["peer"], run["ratios"]
    title = f"{run['n_contexts']:,} contexts, {run['form']}"
    mark = " ¹" if peer["extrapolated_by"] > 1 else ""
    rows = [
        [
            f"{title}: all but the forward pass, CPU",
            seconds(peer["rest_cpu_s"]) + mark,
            seconds(ours["rest_cpu_s"]),
            times(ratios["rest_cpu"]),
        ]
    ]
    if run["form"] == "topk":
        return rows
    if "forward_cpu" in ratios:
        values = peer["forward_cpu_s"], ours["forward_cpu_s"]
        rows.append([f"{title}: forward pass, CPU", *map(seconds, values), times(ratios["forward_cpu"])])
        walls = peer["run_wall_s"], ours["run_wall_s"]
        rows.append(
            [f"{title}: everything but loading, wall", *map(seconds, walls), times(ratios["run_wall"])]
        )
    stored = peer["json_bytes"], ours["stored_bytes"]["total"]
    memory = peer["peak_bytes"], ours["peak_bytes"]
    rows.append(
        [f"{title}: stored", megabytes(stored[0]) + mark, megabytes(stored[1]), times(ratios["stored"])]
    )
    rows.append([f"{title}: peak memory", *map(megabytes, memory), times(ratios["peak_memory"])])
    return rows


def _forward_row(forward: dict[str, Any]) -> list[str]:
    return [
        f"forward pass of {forward['contexts']} contexts, CPU (left: plain `transformers`, truncated)",
        seconds(forward["plain_cpu_s"]),
        seconds(forward["ours_cpu_s"]),
        f"{forward['ratio']:.3f} of it",
    ]


def _notes(result: dict[str, Any]) -> str:
    agreements = "; ".join(
        f"{run['n_contexts']:,} {run['form']}: {run['agreement']['top_values']:.2%} and "
        f"{run['agreement']['densities']:.2%} of {run['agreement']['features']:,} features"
        for run in result["runs"]
    )
    sae = result["sae"]["name"]
    return (
        f"SmolLM2-135M-Instruct, `blocks.15.hook_resid_post`, SAE `{sae}` of 3,072 features as it is "
        "(topk) and with one threshold for all features (jumprelu, where the peer is fastest: it encodes a "
        "TopK SAE whole for every 128 features); contexts of 128 tokens, float32, one thread each, CPU "
        "seconds of the whole process. Ours ends with rows and indexes in Postgres (its server's CPU seconds "
        "included), the peer's with JSON files.\n"
        "¹ Part of the peer's 24 batches of 128 features was run and multiplied; it reads stored "
        "activations, and so do we.\n"
        f"Same results (values of the best contexts; densities): {agreements}.\n"
        f"{machine_line(result['machine'])}"
    )
