"""What the kernel says about processes, for tests that count who is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def processes_of(folder: Path) -> list[int]:
    """Pids of living processes (zombies aside) whose command line or open files mention `folder`."""
    return [pid for pid in _all_pids() if _mentions(pid, str(folder))]


def is_alive(pid: int) -> bool:
    """True while `pid` runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Polls until `condition()` is true; fails the test with `what` when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _mentions(pid: int, text: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        if not command:  # a zombie or a kernel thread
            return False
        if text in command:
            return True
        return any(text in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
