"""A Postgres of our own: started here, watched here, gone when we are.

The programs come from a wheel (see `binaries`). What keeps this honest after a crash is one lock file whose
open descriptor the server and all its backends inherit: while any of them lives the kernel keeps the lock,
and once we get it nobody is left, whatever `postmaster.pid` says. Pids are never trusted; health is asked by
connecting.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from interpedia_local import connection
from interpedia_local.binaries import find_programs
from interpedia_local.cluster import (
    DATABASE,
    PROGRAM_ENVIRONMENT,
    Cluster,
    ServerState,
    require_entry,
    start_failure,
)
from interpedia_local.errors import DatabaseFailed, DataFolderInUse, LocalError, PortInUse, folder_errors
from interpedia_local.folders import MEGABYTE, FolderLock, make_folder, require_space
from interpedia_local.ports import LOOPBACK, free_port, is_free
from interpedia_local.processes import Command, Identity, spawn
from interpedia_local.server_user import choose_identity

NEW_CLUSTER_MEGABYTES = 128
OLD_CLUSTER_MEGABYTES = 32
LOG_LIMIT = 16 * MEGABYTE
# Crash recovery replays the log before the server answers; that can take minutes after a large load.
START_SECONDS = 300.0
# Backends notice a dead postmaster within seconds; a fast shutdown may write a large checkpoint first.
LINGER_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
TEMPORARY_PREFIX = "interpedia-postgres-"
TEMPORARY_LOCK = "in-use.lock"


class LocalPostgres:
    """One Postgres server on 127.0.0.1 whose files live in `data_dir`.

    Args:
        data_dir: the server's folder; made when missing.
        port: a fixed port; by default the port of last time when it is free, else any free one.
        sync: False trades safety against power loss for speed (tests only; kill -9 loses nothing).
        shared_buffers: Postgres' setting of that name.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int | None = None,
        sync: bool = True,
        shared_buffers: str = "256MB",
    ) -> None:
        self.cluster = Cluster(Path(data_dir).absolute())
        self._fixed_port = port
        self._sync = sync
        self._shared_buffers = shared_buffers
        self._owner_lock = FolderLock(self.cluster.home / "supervisor.lock")
        self._state: ServerState | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._programs: Path | None = None
        self._identity: Identity | None = None

    @classmethod
    @contextmanager
    def temporary(cls) -> Generator[Self]:
        """A quick server in a folder of its own that everyone can enter; both are gone afterwards.

        A process that is killed leaves the folder (not the server) behind, which the next call then removes.
        """
        _sweep_temporary()
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
        folder.chmod(0o755)
        lock = FolderLock(folder / TEMPORARY_LOCK)
        lock.acquire()
        server = cls(folder / "postgres", sync=False, shared_buffers="64MB")
        try:
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/interpedia`; a restart does not change it.

        Raises:
            DatabaseFailed: the server was not started.
        """
        return self.database_url(DATABASE)

    def database_url(self, name: str) -> str:
        """The URL of another database of this server."""
        if self._state is None:
            raise DatabaseFailed("Postgres was not started.")
        return self._state.url(name)

    @property
    def pid(self) -> int | None:
        """The pid of the server while it is our running child."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def is_running(self) -> bool:
        """False once the server process has ended."""
        return self._process is not None and self._process.poll() is None

    def is_answering(self) -> bool:
        """True when a connection with the right password succeeds."""
        return (
            self._state is not None and connection.ask(self._state.url("postgres")) is connection.Answer.READY
        )

    def start(self) -> Self:
        """Makes the cluster when there is none, starts the server and returns when it answers.

        Raises:
            DataFolderInUse: another supervisor or server works in this folder.
            DiskFull: the disk has no room.
            FolderUnwritable: the folder cannot be made or written.
            FolderUnreachable: as root, the unprivileged user cannot enter the folder.
            PortInUse: the fixed port, or on a restart the port that was handed out, is taken.
            DatabaseFailed: Postgres refused for another reason.
        """
        if self.is_running():
            return self
        make_folder(self.cluster.home)
        self._owner_lock.acquire()
        try:
            self._state = self._prepare()
            self._launch(moveable=self._fixed_port is None)
            self._ensure_database(DATABASE)
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)
        return self

    def restart(self) -> None:
        """Starts a server that died, on the same port, so that the URL stays true.

        Raises:
            LocalError: as `start`.
        """
        if self._state is None:
            raise DatabaseFailed("Postgres was not started.")
        self._end_process()
        self._launch(moveable=False)

    def stop(self) -> None:
        """Disconnects everybody and stops the server; harmless when it does not run."""
        atexit.unregister(self.stop)
        self._end_process()
        self._owner_lock.release()

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its URL; one that exists is left as it is."""
        self._ensure_database(name)
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Removes a database and whoever is connected to it."""
        connection.execute(
            self.database_url("postgres"), [f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)"]
        )

    def _ensure_database(self, name: str) -> None:
        maintenance = self.database_url("postgres")
        if name not in connection.databases(maintenance):
            connection.execute(maintenance, [f"CREATE DATABASE {_quoted(name)}"])

    def _prepare(self) -> ServerState:
        """Everything before the server: space, user, programs, cluster, port."""
        cluster = self.cluster
        require_space(cluster.home, OLD_CLUSTER_MEGABYTES if cluster.exists else NEW_CLUSTER_MEGABYTES)
        self._identity = choose_identity(cluster.home, cluster.data)
        require_entry(cluster.home, self._identity)
        self._programs = find_programs(self._identity)
        if cluster.exists:
            self._state = cluster.load_state()
            self._server_lock().release()  # an earlier server that is still ending holds its port
        if self._fixed_port is not None and not is_free(self._fixed_port):
            raise PortInUse(_port_sentence(self._fixed_port))
        if not cluster.exists:
            port = self._fixed_port or free_port()
            return cluster.create(self._programs, self._identity, port=port, sync=self._sync)
        state = self._require_state()
        port = self._fixed_port or (state.port if is_free(state.port) else free_port())
        return self._remember(ServerState(port, state.password))

    def _remember(self, state: ServerState) -> ServerState:
        self.cluster.save_state(state)
        self._state = state
        return state

    def _launch(self, *, moveable: bool) -> None:
        """Starts the server until it answers; leftovers and a lost race for a port are retried."""
        deadline = time.monotonic() + LINGER_SECONDS
        while True:
            lock = self._server_lock()
            # With the lock in hand no server of this folder lives, so the pid in that file can only mislead.
            (self.cluster.data / "postmaster.pid").unlink(missing_ok=True)
            log_start = self._spawn(lock)
            if self._wait_until_answering():
                return
            output = self._log_since(log_start)
            if time.monotonic() > deadline or not _passing(output):
                raise self._failure(output)
            if "Address already in use" in output and moveable:
                self._remember(ServerState(free_port(), self._require_state().password))
            time.sleep(0.2)

    def _failure(self, output: str) -> Exception:
        if "Address already in use" in output:
            return PortInUse(_port_sentence(self._require_state().port))
        return start_failure(output, self.cluster.home, doing="start")

    def _server_lock(self) -> FolderLock:
        """Waits until nobody of an earlier server lives; one left without a supervisor is asked to stop."""
        lock = FolderLock(self.cluster.home / "server.lock")
        deadline = time.monotonic() + LINGER_SECONDS
        asked = False
        while True:
            try:
                lock.acquire()
                return lock
            except DataFolderInUse as error:
                if time.monotonic() > deadline:
                    raise DataFolderInUse(
                        f"A Postgres server of an earlier run is still at work in {self.cluster.home}:"
                        " stop it first."
                    ) from error
            if not asked and self.is_answering():
                asked = True
                self._stop_orphan()
            time.sleep(POLL_SECONDS)

    def _stop_orphan(self) -> None:
        """It answers to our password, so it is ours and its `postmaster.pid` is true."""
        arguments = [
            str(self._require_programs() / "pg_ctl"),
            "stop",
            "-D",
            str(self.cluster.data),
            "-m",
            "fast",
            "-W",
        ]
        command = Command(
            arguments, environment=PROGRAM_ENVIRONMENT, identity=self._identity, folder=Path("/")
        )
        spawn(command, output=subprocess.DEVNULL).wait(timeout=STOP_SECONDS)

    def _spawn(self, lock: FolderLock) -> int:
        """Starts the server process, which inherits `lock`; returns where its part of the log begins."""
        descriptor = lock.hand_over()
        command = Command(
            [str(self._require_programs() / "postgres"), *self._arguments()],
            environment=PROGRAM_ENVIRONMENT,
            death_signal=signal.SIGINT,  # fast shutdown
            identity=self._identity,
            folder=Path("/"),
            keep_open=(descriptor,),
        )
        log = self.cluster.log
        try:
            with folder_errors(log.parent):
                if log.exists() and log.stat().st_size > LOG_LIMIT:
                    log.replace(log.with_suffix(".log.1"))
                with log.open("ab") as file:
                    start = os.fstat(file.fileno()).st_size
                    self._process = spawn(command, output=file)
        finally:
            os.close(descriptor)
        return start

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "shared_buffers": self._shared_buffers,
            "max_connections": "100",
            "lc_messages": "C",  # _passing and start_failure read the log
        }
        if not self._sync:
            # Not synchronous_commit: without it even kill -9 of the server loses commits.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        arguments = ["-D", str(self.cluster.data), "-p", str(self._require_state().port)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        return arguments

    def _wait_until_answering(self) -> bool:
        """False when the process ended first.

        Raises:
            DatabaseFailed: it takes too long, or the password is not the one we keep.
        """
        url = self._require_state().url("postgres")
        deadline = time.monotonic() + START_SECONDS
        while self.is_running():
            answer = connection.ask(url)
            if answer is connection.Answer.READY:
                return self.is_running()
            if answer is connection.Answer.WRONG_PASSWORD:
                self._end_process()
                raise DatabaseFailed(
                    f"The password in {self.cluster.home / 'state.json'} is not the one of the database"
                    " beside it."
                )
            if time.monotonic() > deadline:
                self._end_process()
                raise DatabaseFailed(
                    f"Postgres did not answer within {START_SECONDS:.0f} s: see {self.cluster.log}."
                )
            time.sleep(POLL_SECONDS)
        return False

    def _end_process(self) -> None:
        """Fast shutdown, then immediate, then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            if process.poll() is not None:
                return
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=seconds)

    def _log_since(self, offset: int) -> str:
        with self.cluster.log.open("rb") as file:
            file.seek(offset)
            return file.read(LOG_LIMIT).decode("utf-8", "replace")

    def _require_state(self) -> ServerState:
        if self._state is None:
            raise DatabaseFailed("Postgres was not started.")
        return self._state

    def _require_programs(self) -> Path:
        if self._programs is None:
            raise DatabaseFailed("Postgres was not started.")
        return self._programs


def _sweep_temporary() -> None:
    """Removes temporary folders of ours whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        # Without a lock file it is just being made; under another user it is not ours to judge.
        with suppress(OSError, LocalError):
            if folder.stat().st_uid == os.geteuid() and (folder / TEMPORARY_LOCK).is_file():
                lock = FolderLock(folder / TEMPORARY_LOCK)
                lock.acquire()
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def _passing(output: str) -> bool:
    """True for reasons to fail that go away by themselves, or with another port."""
    reasons = ("Address already in use", "pre-existing shared memory block", "lock file")
    return any(reason in output for reason in reasons)


def _port_sentence(port: int) -> str:
    return f"Port {port}, which Postgres is to use, is in use by another program: stop it, or choose another."


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
