"""A peer's own virtual environment, made once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from benchmarks.processes import run

LOG = logging.getLogger("bench.peer")
PEER = "sae-dashboard==0.8.0"
PINS = Path(__file__).parent / "sae_dashboard.txt"


def peer_python(folder: Path) -> Path:
    """The interpreter of SAEDashboard's environment under `folder`; the first time this takes minutes.

    Raises:
        ChildFailed: pip failed; its last words are in the message.
    """
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = f"{PEER}\n{PINS.read_text()}"
    if done.exists() and done.read_text() == wanted:
        return python
    LOG.info("making the peer's environment: some minutes, once")
    log = folder.with_suffix(".log")
    run([sys.executable, "-m", "venv", "--clear", folder], log=log)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "-r", PINS], log=log)
    run([*pip, "--no-deps", PEER], log=log)
    done.write_text(wanted)
    return python
