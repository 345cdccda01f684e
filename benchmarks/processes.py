"""Child processes and what they use."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger("bench")
SINGLE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TAIL_CHARS = 2000


class ChildFailed(RuntimeError):
    """A child process ended with another status than 0; the message has its last words."""


class FolderInUse(RuntimeError):
    """Another benchmark works in the same folder; two at once would spoil both."""


@contextmanager
def exclusive(folder: Path) -> Generator[None]:
    """Hold a folder for one benchmark; a killed one lets go of it.

    Raises:
        FolderInUse: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "bench.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUse(f"another benchmark is running in {folder}") from error
        yield


@dataclass(frozen=True)
class Usage:
    """What a finished child and its own children used."""

    cpu_s: float
    wall_s: float


@dataclass
class Child:
    """A running child; its output goes to a log file."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def wait(self) -> Usage:
        """Wait for the end.

        Raises:
            ChildFailed: it failed.
        """
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            words = self.log.read_text(errors="replace")[-TAIL_CHARS:]
            raise ChildFailed(f"{self.log.name}: exit status {self.process.returncode}\n{words}")
        return Usage(cpu_s=usage.ru_utime + usage.ru_stime, wall_s=time.perf_counter() - self.began)


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child gets: this process's environment, one thread per library, settings of its own."""
    return {**os.environ, **SINGLE_THREAD, **(environment or {})}


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Start a child with one thread per library, unless `environment` says otherwise."""
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = child_environment(environment)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Child(process, log, time.perf_counter())


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Usage:
    """Run a child to its end.

    Raises:
        ChildFailed: it failed.
    """
    return start(command, log=log, folder=folder, environment=environment).wait()


def run_module(module: str, *arguments: str | Path, log: Path) -> Usage:
    """Run `python -m module` with this interpreter.

    Raises:
        ChildFailed: it failed.
    """
    return run([sys.executable, "-m", module, *arguments], log=log)


def peak_memory() -> int:
    """Most bytes that this process had in memory so far.

    Not `ru_maxrss`, which a child inherits from the process that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")
