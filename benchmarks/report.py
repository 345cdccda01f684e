"""Results as JSON files, and the tables of the README that they write."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"


class MissingMarkers(ValueError):
    """A document has not exactly one place for a table."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a `|` in a cell is escaped.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {list(row)}")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def replace_section(text: str, name: str, content: str) -> str:
    """Put `content` between `<!-- bench:name -->` and `<!-- /bench:name -->`.

    Raises:
        MissingMarkers: the text does not have each marker once, in this order.
    """
    opening, closing = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
        raise MissingMarkers(f"{opening} … {closing} is needed once, in this order")
    before, rest = text.split(opening)
    after = rest.split(closing)[1]
    return f"{before}{opening}\n{content.strip()}\n{closing}{after}"


def publish(
    name: str, result: dict[str, Any], section: str, *, results: Path = RESULTS, readme: Path = README
) -> Path:
    """Write `results/name.json` and the README's section; return the JSON file.

    Raises:
        MissingMarkers: the README has no place for the section (the JSON file is written all the same).
    """
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = replace_section(readme.read_text(encoding="utf-8"), name, section)
    readme.write_text(text, encoding="utf-8")
    return path


def machine(*packages: str) -> dict[str, Any]:
    """What a reader needs to judge a figure: processor, memory, load, versions. No name of the machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / (1 << 30)),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The same as one sentence for the README."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"Measured {facts['date']} on {facts['cores']} cores ({facts['processor']}), "
        f"{facts['memory_gib']} GiB, load {facts['load_average'][0]} at the start; "
        f"Python {facts['python']}, {versions}."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def seconds(value: float) -> str:
    """Seconds for a table: three figures."""
    return f"{value:.3g} s" if value < 100 else f"{value:,.0f} s"


def megabytes(value: float) -> str:
    """Bytes for a table, in units of 10^6 or 10^9."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def times(value: float) -> str:
    """A ratio for a table."""
    return f"{value:.3g}×" if value < 100 else f"{value:.0f}×"


def milliseconds(value: float) -> str:
    """Seconds as milliseconds for a table."""
    return f"{value * 1e3:.3g} ms"
