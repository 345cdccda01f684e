"""The Postgres supervisor against a real server: what it serves, and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from interpedia_local import postgres as postgres_module
from interpedia_local.connection import Answer, ask
from interpedia_local.errors import DatabaseFailed, DataFolderInUse, FolderUnwritable, PortInUse
from interpedia_local.postgres import LocalPostgres
from tests.local.processes_seen import is_alive, processes_of, wait_for

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and /proc")


def local_postgres(folder: Path, *, port: int | None = None) -> LocalPostgres:
    return LocalPostgres(folder / "postgres", port=port, sync=False, shared_buffers="64MB")


@pytest.fixture
def server(open_folder: Path) -> Generator[LocalPostgres]:
    server = local_postgres(open_folder).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared_server() -> Generator[LocalPostgres]:
    """For tests that only look."""
    with LocalPostgres.temporary() as server:
        yield server


async def insert_rows(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept (number integer PRIMARY KEY)")
    await connection.execute(f"INSERT INTO kept SELECT generate_series(1, {count})")
    await connection.close()


async def count_rows(url: str) -> int:
    connection = await asyncpg.connect(url)
    count: int = await connection.fetchval("SELECT count(*) FROM kept")
    await connection.close()
    return count


class TestServing:
    async def test_answers_on_loopback_only_with_the_promised_locale(
        self, shared_server: LocalPostgres
    ) -> None:
        assert urlsplit(shared_server.url).hostname == "127.0.0.1"
        connection = await asyncpg.connect(shared_server.url)
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""
        assert await connection.fetchval("SHOW server_version_num") >= "180000"
        row = await connection.fetchrow(
            "SELECT datlocprovider::text AS provider, datlocale, pg_encoding_to_char(encoding) AS encoding"
            " FROM pg_database WHERE datname = current_database()"
        )
        assert dict(row) == {"provider": "b", "datlocale": "C.UTF-8", "encoding": "UTF8"}
        await connection.close()

    async def test_pgvector_is_there(self, shared_server: LocalPostgres) -> None:
        connection = await asyncpg.connect(shared_server.url)
        await connection.execute("CREATE EXTENSION vector")
        distance = await connection.fetchval("SELECT '[1,0]'::halfvec(2) <=> '[0,1]'::halfvec(2)")
        assert distance == pytest.approx(1.0)
        await connection.close()

    async def test_wrong_password_is_refused(self, shared_server: LocalPostgres) -> None:
        parts = urlsplit(shared_server.url)
        wrong = shared_server.url.replace(f":{parts.password}@", ":guess@")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)
        assert ask(wrong) is Answer.WRONG_PASSWORD
        assert ask(shared_server.url) is Answer.READY

    async def test_databases_can_be_added_and_removed(self, shared_server: LocalPostgres) -> None:
        url = shared_server.create_database('an "odd" name')
        held_open = await asyncpg.connect(url.replace('an "odd" name', "an%20%22odd%22%20name"))
        shared_server.drop_database('an "odd" name')
        with pytest.raises(asyncpg.PostgresError):
            await held_open.fetchval("SELECT 1")

    def test_secrets_are_private(self, shared_server: LocalPostgres) -> None:
        assert (shared_server.cluster.home / "state.json").stat().st_mode & 0o777 == 0o600
        assert shared_server.cluster.data.stat().st_mode & 0o077 == 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to run it as")
    def test_root_runs_it_as_somebody_else_and_adds_no_account(self, server: LocalPostgres) -> None:
        accounts = Path("/etc/passwd").read_bytes()
        server.stop()
        server.start()
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        assert Path("/etc/passwd").read_bytes() == accounts

    async def test_temporary_leaves_nothing(self) -> None:
        with LocalPostgres.temporary() as server:
            folder = server.cluster.home.parent
            await insert_rows(server.url, 1)
        assert not folder.exists()

    def test_temporary_removes_what_a_killed_process_left(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A place of our own: another test that begins just now would remove it before us.
        monkeypatch.setenv("TMPDIR", str(open_folder))
        monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
        program = (
            "from interpedia_local.postgres import LocalPostgres\n"
            "import sys\n"
            "with LocalPostgres.temporary() as server:\n"
            "    sys.stdout.write(f'{server.cluster.home}\\n'); sys.stdout.flush(); sys.stdin.read()\n"
        )
        killed, living = (
            subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        )
        left, kept = (Path(_line(process)).parent for process in (killed, living))
        killed.kill()
        killed.communicate()
        wait_for(lambda: not processes_of(left), "the server's end")
        assert left.exists(), "control: nobody else removes it"
        with LocalPostgres.temporary():
            assert not left.exists()
            assert kept.exists()
        living.communicate()


class TestSurviving:
    async def test_a_stop_and_a_start_keep_rows_password_and_port(self, open_folder: Path) -> None:
        first = local_postgres(open_folder).start()
        url = first.url
        await insert_rows(url, 10)
        first.stop()
        assert ask(url) is Answer.NOT_YET
        second = local_postgres(open_folder).start()
        assert second.url == url
        assert await count_rows(url) == 10
        second.stop()

    @linux_only
    async def test_kill_9_of_the_server_loses_no_committed_row(self, server: LocalPostgres) -> None:
        url = server.url
        await insert_rows(url, 50_000)
        asleep = asyncio.create_task(_sleep_in_the_server(url))  # a backend that lingers
        await asyncio.sleep(0.2)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: not server.is_running(), "the server's death")
        server.restart()
        assert server.url == url
        assert await count_rows(url) == 50_000
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await asleep

    def test_a_stale_pid_file_that_names_a_living_process_does_not_stop_it(self, open_folder: Path) -> None:
        first = local_postgres(open_folder).start()
        pid_file = first.cluster.data / "postmaster.pid"
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        owner = pid_file.stat()
        first.stop()
        # Another process of the same user now has the pid of the dead server.
        user = {} if os.geteuid() != 0 else {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        stranger = subprocess.Popen(["/bin/sleep", "600"], **user)
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n", encoding="utf-8")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        try:
            second = local_postgres(open_folder).start()
            assert second.is_answering()
            second.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_a_half_made_cluster_is_made_anew(self, open_folder: Path) -> None:
        leftover = open_folder / "postgres" / "initdb-dead" / "data"
        leftover.mkdir(parents=True)
        (leftover / "PG_VERSION").write_text("18\n", encoding="utf-8")
        server = local_postgres(open_folder).start()
        assert server.is_answering()
        assert not leftover.exists()
        server.stop()

    def test_the_thread_that_started_it_may_end(self, open_folder: Path) -> None:
        server = local_postgres(open_folder)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        assert server.is_answering()
        server.stop()


@linux_only
class TestEndingWithItsParent:
    def test_kill_9_of_the_parent_takes_the_server_along(self, open_folder: Path) -> None:
        parent = _parent_process(open_folder)
        assert len(processes_of(open_folder)) > 1, "control: the server is there and is found"
        parent.kill()
        parent.communicate()
        wait_for(lambda: not processes_of(open_folder), "the server and its backends ending")
        again = local_postgres(open_folder).start()
        assert again.is_answering()
        again.stop()

    def test_a_start_right_after_kill_9_waits_for_the_old_one(self, open_folder: Path) -> None:
        parent = _parent_process(open_folder)
        parent.kill()
        parent.communicate()
        again = local_postgres(open_folder).start()
        assert again.is_answering()
        again.stop()

    def test_an_orphan_that_still_answers_is_stopped(self, open_folder: Path) -> None:
        """As on a system without the death signal."""
        parent = _parent_process(
            open_folder,
            "from interpedia_local import processes\nprocesses._death_notice = lambda number: None\n",
        )
        parent.kill()
        parent.communicate()
        orphans = processes_of(open_folder)
        assert orphans, "control: without the death signal it lives on"
        server = local_postgres(open_folder).start()
        assert server.is_answering()
        assert not any(is_alive(pid) for pid in orphans)
        server.stop()


class TestRefusing:
    def test_a_folder_in_use(self, server: LocalPostgres) -> None:
        with pytest.raises(DataFolderInUse, match=rf"in use by process {os.getpid()}: stop that run first"):
            LocalPostgres(server.cluster.home).start()
        assert server.is_answering()

    def test_a_port_in_use(self, open_folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(PortInUse, match=f"Port {port}, which Postgres is to use, is in use"):
                local_postgres(open_folder, port=port).start()

    def test_the_port_of_last_time_is_given_up_when_taken(self, open_folder: Path) -> None:
        first = local_postgres(open_folder).start()
        port = urlsplit(first.url).port
        first.stop()
        assert port is not None
        with socket.create_server(("127.0.0.1", port)):
            second = local_postgres(open_folder).start()
            assert urlsplit(second.url).port != port
            assert second.is_answering()
            second.stop()

    def test_a_port_taken_while_the_server_was_down(
        self, server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_module, "LINGER_SECONDS", 1.0)
        # Whoever has the port never says a word.
        monkeypatch.setattr("interpedia_local.connection.CONNECT_SECONDS", 1.0)
        port = urlsplit(server.url).port
        assert port is not None
        server._end_process()
        with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUse, match=str(port)):
            server.restart()

    def test_a_lost_password(self, open_folder: Path) -> None:
        local_postgres(open_folder).start().stop()
        (open_folder / "postgres" / "state.json").unlink()
        with pytest.raises(DatabaseFailed, match=r"state\.json is missing or damaged"):
            local_postgres(open_folder).start()

    def test_another_password(self, open_folder: Path) -> None:
        server = local_postgres(open_folder).start()
        server.stop()
        state = open_folder / "postgres" / "state.json"
        state.write_text(f'{{"port": {urlsplit(server.url).port}, "password": "guess"}}', encoding="utf-8")
        with pytest.raises(DatabaseFailed, match="is not the one of the database beside it"):
            local_postgres(open_folder).start()
        assert not processes_of(open_folder)

    def test_a_file_in_the_way(self, open_folder: Path) -> None:
        (open_folder / "postgres").write_text("", encoding="utf-8")
        with pytest.raises(FolderUnwritable, match="a file is in its way"):
            local_postgres(open_folder).start()

    def test_a_damaged_cluster(self, open_folder: Path) -> None:
        server = local_postgres(open_folder).start()
        server.stop()
        (server.cluster.data / "global" / "pg_control").unlink()
        with pytest.raises(
            DatabaseFailed, match=r"Postgres could not start in .*could not find the database system"
        ):
            server.start()
        assert not server.is_running()


def _parent_process(folder: Path, before: str = "") -> subprocess.Popen[bytes]:
    """A process of its own that starts the server and then waits."""
    home = str(folder / "postgres")
    program = (
        f"{before}from interpedia_local.postgres import LocalPostgres\n"
        f"LocalPostgres({home!r}, sync=False, shared_buffers='64MB').start()\n"
        "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    return parent


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


async def _sleep_in_the_server(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_sleep(600)")
