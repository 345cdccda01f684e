"""Processes that begin with their imports done: importing torch takes longer than what most of them are for.

A server imports a module and all that it needs, then forks once per process asked for. In the fork the module
runs as `python -m` runs it, with an environment and a log of its own. The fork is as killable as any process.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class ForkServer:
    """Starts processes of one module; `warm` are modules that it imports late."""

    def __init__(self, module: str, *warm: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", module, *warm],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def ask(self, **request: Any) -> Any:
        """One request, one answer."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the fork server ended; its last words are in the output"
        return json.loads(answer)

    def close(self) -> None:
        """The server ends with its input."""
        self._process.communicate()


@cache
def fork_server(module: str, *warm: str) -> ForkServer:
    """The server of a module, started when it is first needed."""
    return ForkServer(module, *warm)


class ForkedProcess:
    """What tests use of `subprocess.Popen`, for a fork of the module's server."""

    def __init__(
        self, module: str, environment: Mapping[str, str], log: Path, *, warm: Sequence[str] = ()
    ) -> None:
        self._server = fork_server(module, *warm)
        self.pid: int = self._server.ask(start=dict(environment), log=str(log))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or the negative signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM, if it still runs."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        # Until it is polled a dead process keeps its pid, so this reaches nobody else.
        if self.poll() is None:
            os.kill(self.pid, number)


def _exit_status(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(environment: Mapping[str, str], log: str) -> None:
    """In the fork: nothing of the server's is left but what it imported."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", 1), open(2, "w", 1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)


def _serve() -> bool:
    """Answer requests until there are no more; True in a fork."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            answer = _exit_status(request["poll"])
        elif (answer := os.fork()) == 0:
            _become(request["start"], request["log"])
            return True
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return False


if __name__ == "__main__":
    wanted = sys.argv[1]
    for name in sys.argv[1:]:
        importlib.import_module(name)
    del sys.modules[wanted]  # it runs anew, as the main module
    if _serve():
        runpy.run_module(wanted, run_name="__main__", alter_sys=True)
