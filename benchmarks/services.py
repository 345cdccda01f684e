"""Our services as processes of their own, asked over loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import start

START_SECONDS = 180.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Service:
    """A running service."""

    base: str
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far, in steps of the kernel's clock tick."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        # utime and stime: fields 14 and 15 of proc(5), counted from behind the process's name
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes that it has in memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise OSError("the process's status has no VmRSS")


@contextmanager
def service(name: str, *, url: str, work: Path, environment: Mapping[str, str]) -> Generator[Service]:
    """Run `interpedia_<name>` against a database until the block ends; ready when `/readyz` says so.

    Args:
        name: Of the module, and of the log file in `work`.
        url: Of the database.
        work: For the log, and for data unless `environment` has another place.
        environment: Settings beyond database, port, data folder and log level.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    port = free_port()
    settings = {
        "INTERPEDIA_DATABASE__URL": url,
        "INTERPEDIA_PORT": str(port),
        "INTERPEDIA_DATA_DIR": str((work / f"{name}-data").absolute()),
        "INTERPEDIA_LOG_LEVEL": "WARNING",
        **environment,
    }
    command = [sys.executable, "-m", f"interpedia_{name}"]
    process = start(command, log=work / "logs" / f"{name}.log", environment=settings).process
    try:
        base = f"http://127.0.0.1:{port}"
        _await_ready(base, process, name)
        yield Service(base, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(base: str, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with status {process.returncode}: see {name}.log")
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{name} was not ready after {START_SECONDS} s: see {name}.log")
