"""Starting child processes that cannot outlive us.

Linux sends a chosen signal to a child when its parent dies (PR_SET_PDEATHSIG), even by kill -9. "Parent"
means the *thread* that forked, so all children are forked by one thread that lives as long as the
interpreter. On other systems children end with us only when we end in an orderly way.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypedDict

PR_SET_PDEATHSIG = 1
Output = IO[bytes] | int | None


@dataclass(frozen=True)
class Identity:
    """The user that a child runs as."""

    uid: int
    gid: int
    name: str


class _UserArguments(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Command:
    """What to run. `death_signal` is what the child gets when this process dies."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    death_signal: signal.Signals = signal.SIGKILL
    identity: Identity | None = None
    folder: Path | None = None
    keep_open: tuple[int, ...] = field(default=())


def spawn(command: Command, *, output: Output, errors: Output = subprocess.STDOUT) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own.

    Args:
        command: what to run.
        output: where standard output goes; None for where ours goes.
        errors: where standard error goes; by default after the standard output.

    Raises:
        OSError: the program does not exist or may not be run.
    """
    return _spawner().submit(_Order(command, output, errors if output is not None else None)).result()


@dataclass(frozen=True)
class _Order:
    command: Command
    output: Output
    errors: Output
    answer: Future[subprocess.Popen[bytes]] = field(default_factory=Future[subprocess.Popen[bytes]])


class _Spawner:
    """The one thread that forks."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spawner", daemon=True).start()

    def submit(self, order: _Order) -> Future[subprocess.Popen[bytes]]:
        self._orders.put(order)
        return order.answer

    def _work(self) -> None:
        while True:
            order = self._orders.get()
            try:
                order.answer.set_result(_popen(order))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                order.answer.set_exception(error)


_lock = threading.Lock()
_spawners: dict[int, _Spawner] = {}


def _spawner() -> _Spawner:
    """One per process id: a fork copies this module but not its thread."""
    with _lock:
        if os.getpid() not in _spawners:
            _spawners[os.getpid()] = _Spawner()
        return _spawners[os.getpid()]


def _popen(order: _Order) -> subprocess.Popen[bytes]:
    command = order.command
    user: _UserArguments = {}
    if command.identity is not None and os.geteuid() == 0:
        user = {"user": command.identity.uid, "group": command.identity.gid, "extra_groups": []}
    return subprocess.Popen(
        list(command.arguments),
        env=dict(command.environment),
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        stdout=order.output,
        stderr=order.errors,
        start_new_session=True,
        pass_fds=command.keep_open,
        # It runs one system call and compares two numbers: nothing that could wait for another thread.
        preexec_fn=_death_notice(command.death_signal),  # noqa: PLW1509
        **user,
    )


def _death_notice(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What the child does between fork and exec, after it has changed its user (which clears the request)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_for_it() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request was in place
            os._exit(1)

    return ask_for_it
