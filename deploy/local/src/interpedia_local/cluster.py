"""The files of one database server: making them, and remembering its port and password."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from interpedia_local.errors import (
    DatabaseFailed,
    DiskFull,
    FolderUnreachable,
    disk_full_sentence,
    folder_errors,
)
from interpedia_local.folders import free_megabytes, write_private
from interpedia_local.ports import LOOPBACK
from interpedia_local.processes import Command, Identity, spawn
from interpedia_local.server_user import can_enter

OWNER = "interpedia"
DATABASE = "interpedia"
PROGRAM_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
INITDB_SECONDS = 300
FULL_DISK_WORDS = ("No space left on device", "Check free disk space", "Disk quota exceeded")
SAID_LIMIT = 300  # characters of a program's last words in an error


@dataclass(frozen=True)
class ServerState:
    """What a later start must know. Kept in `state.json`, mode 0600."""

    port: int
    password: str

    def url(self, database: str = DATABASE) -> str:
        """The connection URL, password included."""
        return f"postgresql://{OWNER}:{self.password}@{LOOPBACK}:{self.port}/{database}"


@dataclass(frozen=True)
class Cluster:
    """The folder of one server: `cluster/` belongs to the server's user, all else to us."""

    home: Path

    @property
    def data(self) -> Path:
        """Postgres' own data folder."""
        return self.home / "cluster"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    @property
    def exists(self) -> bool:
        """True when initdb once finished: the folder gets its name only then."""
        return (self.data / "PG_VERSION").is_file()

    def load_state(self) -> ServerState:
        """Reads `state.json`.

        Raises:
            DatabaseFailed: it is missing or damaged, so that nobody knows the password.
        """
        path = self.home / "state.json"
        try:
            with folder_errors(self.home):
                fields = json.loads(path.read_text(encoding="utf-8"))
            return ServerState(port=int(fields["port"]), password=str(fields["password"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise DatabaseFailed(
                f"{path} is missing or damaged, and with it the password of the database beside it:"
                f" put it back, or remove {self.home} to begin again."
            ) from error

    def save_state(self, state: ServerState) -> None:
        """Replaces `state.json`."""
        write_private(self.home / "state.json", json.dumps(asdict(state)) + "\n")

    def create(self, programs: Path, identity: Identity | None, *, port: int, sync: bool) -> ServerState:
        """Runs initdb under a passing name and renames the result, so that a half-made cluster is never used.

        Raises:
            DiskFull: no room.
            FolderUnreachable: the server's user cannot enter the folder.
            DatabaseFailed: initdb refused for another reason.
        """
        for leftover in self.home.glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        state = ServerState(port=port, password=secrets.token_urlsafe(24))
        self.save_state(state)
        with folder_errors(self.home):
            draft = self.home / f"initdb-{secrets.token_hex(4)}"
            draft.mkdir(mode=0o700)
            _give(draft, identity)
        try:
            require_entry(draft, identity)
            self._initdb(programs, draft, identity, password=state.password, sync=sync)
            with folder_errors(self.home):
                (draft / "data").rename(self.data)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return state

    def _initdb(
        self, programs: Path, draft: Path, identity: Identity | None, *, password: str, sync: bool
    ) -> None:
        password_file = draft / "password"
        with folder_errors(self.home):
            write_private(password_file, password + "\n")
            _give(password_file, identity)
        arguments = [
            str(programs / "initdb"),
            f"--pgdata={draft / 'data'}",
            f"--username={OWNER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ] + ([] if sync else ["--no-sync"])
        command = Command(arguments, environment=PROGRAM_ENVIRONMENT, identity=identity, folder=Path("/"))
        process = spawn(command, output=subprocess.PIPE)
        output, _ = process.communicate(timeout=INITDB_SECONDS)
        if process.returncode != 0:
            raise start_failure(output.decode("utf-8", "replace"), self.home, doing="create its files")


def require_entry(folder: Path, identity: Identity | None) -> None:
    """Checks that the server's user gets into `folder`.

    Raises:
        FolderUnreachable: a parent folder keeps that user out.
    """
    if identity is not None and not can_enter(folder, identity):
        raise FolderUnreachable(
            f"Postgres must not run as root, and the user {identity.name} cannot enter {folder.parent}:"
            " choose a data folder whose parents everyone can enter, or run as an ordinary user."
        )


def start_failure(output: str, home: Path, *, doing: str) -> DatabaseFailed | DiskFull:
    """The error for what a Postgres program said before it gave up."""
    # On a full disk the log is often cut off before the reason.
    if any(words in output for words in FULL_DISK_WORDS) or free_megabytes(home) < 2:
        return DiskFull(disk_full_sentence(home))
    lines = [line.strip() for line in output.splitlines() if line.strip() and " LOG: " not in line]
    worst = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line][-1:] or lines
    said = " ".join(worst)[:SAID_LIMIT] or "it gave no reason"
    return DatabaseFailed(f"Postgres could not {doing} in {home}: {said}")


def _give(path: Path, identity: Identity | None) -> None:
    if identity is not None:
        os.chown(path, identity.uid, identity.gid)
