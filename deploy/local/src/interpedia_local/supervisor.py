"""Keeping child processes alive, and ending them all."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from interpedia_local.errors import ServiceFailed, folder_errors
from interpedia_local.folders import MEGABYTE
from interpedia_local.ports import LOOPBACK
from interpedia_local.processes import Command, spawn
from interpedia_local.services import Service

LOG_LIMIT = 16 * MEGABYTE
TAIL_LINES = 20
TAIL_BYTES = 8192
READY_SECONDS = 2.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class RestartLimits:
    """How often a service may die before we give up on it."""

    deaths: int = 5
    window: float = 60.0
    """Seconds over which deaths are counted."""
    first_pause: float = 0.5
    """Seconds before the first restart; doubles with every death in the window."""
    grace: float = 10.0
    """Seconds between asking a service to stop and making it."""


class Deaths:
    """Counts how often something died lately."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._times: deque[float] = deque()

    def add(self) -> int:
        """Notes a death; returns how many there were in the window."""
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > self._limits.window:
            self._times.popleft()
        return len(self._times)


class Child:
    """One service's process, over all its restarts."""

    def __init__(self, service: Service, log: Path, environment: Mapping[str, str], deaths: Deaths) -> None:
        self.service = service
        self.log = log
        self._environment = {**environment, **service.environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = deaths
        self.due = 0.0

    @property
    def pid(self) -> int | None:
        """The pid of the running process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process with its output going to the log.

        Raises:
            ServiceFailed: the program cannot be run.
            DiskFull: the log cannot be opened.
        """
        with folder_errors(self.log.parent):
            if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
                self.log.replace(self.log.with_suffix(".log.1"))
            file = self.log.open("ab")
        with file:
            try:
                self._process = spawn(Command(self.service.arguments, self._environment), output=file)
            except OSError as error:
                raise ServiceFailed(f"{self.service.name} cannot be started: {error.strerror}.") from error

    def ended(self) -> int | None:
        """The exit code once the process has ended (its whole group ends then); None while it runs."""
        process = self._process
        if process is None or not _has_ended(process):
            return None
        # The dead leader is not reaped yet, so the group's number cannot belong to anybody else.
        _signal_group(process, signal.SIGKILL)
        self._process = None
        return process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM to the process and its children."""
        if self._process is not None:
            _signal_group(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and its children."""
        process, self._process = self._process, None
        if process is not None:
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def tail(self) -> str:
        """The last lines of the log."""
        return log_tail(self.log)


class Supervisor:
    """All children together. `check` must be called often; it does not block."""

    def __init__(
        self,
        services: Sequence[Service],
        log_folder: Path,
        environment: Mapping[str, str],
        *,
        limits: RestartLimits | None = None,
        report: Callable[[str], None],
    ) -> None:
        self._limits = limits = limits or RestartLimits()
        self._report = report
        self.children = [
            Child(service, log_folder / f"{service.name}.log", environment, Deaths(limits))
            for service in services
        ]

    def start(self) -> None:
        """Starts every child."""
        for child in self.children:
            child.start()

    def check(self) -> None:
        """Starts again what died.

        Raises:
            ServiceFailed: a child died too often; the end of its log is in the message.
        """
        for child in self.children:
            code = child.ended()
            if code is not None:
                self._note_death(child, code)
            elif child.pid is None and time.monotonic() >= child.due:
                child.start()

    def not_ready(self) -> list[str]:
        """Names of the children that do not answer `/readyz` with 200, or are not running."""
        return [child.service.name for child in self.children if not _is_ready(child)]

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ends every child: politely for some seconds (or until `hurry()`), then by force."""
        for child in self.children:
            child.ask_to_stop()
        deadline = time.monotonic() + self._limits.grace
        while time.monotonic() < deadline and not hurry():
            if all(child.pid is None or child.ended() is not None for child in self.children):
                break
            time.sleep(POLL_SECONDS)
        for child in self.children:
            child.kill()

    def _note_death(self, child: Child, code: int) -> None:
        name, times = child.service.name, child.deaths.add()
        if times >= self._limits.deaths:
            raise ServiceFailed(
                f"{name} ended {times} times within {self._limits.window:.0f} s ({describe_exit(code)});"
                f" the end of {child.log}:\n{child.tail()}"
            )
        child.due = time.monotonic() + self._limits.first_pause * 2 ** (times - 1)
        self._report(f"{name} ended ({describe_exit(code)}) and is started again; see {child.log}.")


def describe_exit(code: int) -> str:
    """`exit code 3`, or `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def log_tail(log: Path) -> str:
    """The last lines of a log, or a word about why there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines) or "  (the log is empty)"


def _is_ready(child: Child) -> bool:
    if child.pid is None:
        return False
    if child.service.port is None:
        return True
    # Asked several times a second: cheap, and past any proxy that the environment names.
    connection = http.client.HTTPConnection(LOOPBACK, child.service.port, timeout=READY_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
