"""The launcher with a real Postgres and stand-in services: coming up, surviving, going away whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from interpedia_local.postgres import LocalPostgres
from tests.local.processes_seen import is_alive, processes_of, wait_for
from tests.support.ports import unused_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
ROOT = Path(__file__).parents[2]


class Run:
    """A launcher in a process of its own, as `make run` has it."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        self.data_dir = data_dir
        self.ports: list[int] = options.pop("ports", None) or [unused_port() for _ in range(4)]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("INTERPEDIA_")
        } | options.pop("environment", {})
        self._output = (data_dir.parent / f"output-{data_dir.name}-{self.ports[0]}").open("w+b")
        described = {"data_dir": str(data_dir), "ports": self.ports, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.local.stand_in_launcher", json.dumps(described)],
            cwd=ROOT,
            env=environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text(encoding="utf-8")

    def wait_until(self, words: str) -> None:
        wait_for(lambda: words in self.output or self.process.poll() is not None, words)
        assert words in self.output, self.output

    def end(self) -> int:
        return self.process.wait(timeout=300)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._output.close()


@pytest.fixture(scope="module")
def database() -> Generator[str]:
    """A database for the runs that are not about Postgres: making one takes most of a run."""
    with LocalPostgres.temporary() as server:
        yield server.url


@pytest.fixture
def runs(open_folder: Path) -> Generator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.close()
    wait_for(lambda: not processes_of(open_folder / "var"), "nothing left behind")


def begin(runs: list[Run], folder: Path, database: str | None, **options: Any) -> Run:
    """A run with the database given, or with a Postgres of its own."""
    given = {} if database is None else {"INTERPEDIA_DATABASE__URL": database}
    environment = given | options.pop("environment", {})
    runs.append(Run(folder / "var", environment=environment, **options))
    return runs[-1]


def get(port: int) -> int:
    try:
        url = f"http://127.0.0.1:{port}/readyz"
        return httpx.get(url, trust_env=False, verify=False, timeout=60).status_code
    except httpx.TransportError:
        return 0


class TestComingUp:
    def test_everything_is_up_and_the_key_is_shown_once(self, runs: list[Run], open_folder: Path) -> None:
        first = begin(runs, open_folder, None)
        first.wait_until("Ctrl-C stops everything.")
        assert [get(port) for port in first.ports] == [200] * 4
        assert "shown only now: key-of-the-owner" in first.output
        assert "demo with key-of-the-owner" in first.output
        key = open_folder / "var" / "owner.key"
        assert key.read_text(encoding="utf-8") == "key-of-the-owner\n"
        assert key.stat().st_mode & 0o777 == 0o600
        first.process.send_signal(signal.SIGINT)
        assert first.end() == 0
        assert not processes_of(open_folder / "var")

        second = begin(runs, open_folder, None)
        second.wait_until("Ctrl-C stops everything.")
        assert "demo with key-of-the-owner" in second.output
        assert "shown only now" not in second.output

    def test_a_lost_key_is_replaced(self, runs: list[Run], open_folder: Path, database: str) -> None:
        begin(runs, open_folder, database, exit_when_ready=True).end()
        (open_folder / "var" / "owner.key").unlink()
        again = begin(runs, open_folder, database, exit_when_ready=True)
        assert again.end() == 0
        assert "demo with a-further-key" in again.output

    def test_ones_own_key_is_used(self, runs: list[Run], open_folder: Path, database: str) -> None:
        begin(runs, open_folder, database, exit_when_ready=True).end()
        (open_folder / "var" / "owner.key").unlink()
        again = begin(
            runs, open_folder, database, exit_when_ready=True, environment={"INTERPEDIA_API_KEY": "mine"}
        )
        assert again.end() == 0
        assert "demo with mine" in again.output

    def test_the_demo_is_explained_beside_the_services(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        program = "import os, time; print('explaining with', os.environ['INTERPEDIA_API_KEY'], flush=True)"
        run = begin(runs, open_folder, database, explanations=program + "; time.sleep(600)")
        run.wait_until("explaining with key-of-the-owner")
        assert run.output.index("Ctrl-C stops") < run.output.index("explaining with")
        assert [get(port) for port in run.ports] == [200] * 4
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
        assert not processes_of(open_folder / "var")

    def test_nothing_is_explained_without_a_demo_or_in_passing(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        program = "print('explaining', flush=True)"
        passing = begin(runs, open_folder, database, explanations=program, exit_when_ready=True)
        assert passing.end() == 0
        failed = begin(runs, open_folder, database, explanations=program, demo="import sys; sys.exit(1)")
        failed.wait_until("Ctrl-C stops everything.")
        assert "explaining" not in passing.output + failed.output

    def test_exit_when_ready_ends_with_everything(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        run = begin(runs, open_folder, database, exit_when_ready=True)
        assert run.end() == 0
        assert not processes_of(open_folder / "var")

    def test_services_see_where_everything_is(self, runs: list[Run], open_folder: Path) -> None:
        show = "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k[0] in 'IP'}))"
        run = begin(
            runs, open_folder, None, exit_when_ready=True, demo=show, environment={"PGSSLMODE": "require"}
        )
        assert run.end() == 0
        seen = json.loads(next(line for line in run.output.splitlines() if line.startswith("{")))
        assert seen["INTERPEDIA_DATABASE__URL"].startswith("postgresql://interpedia:")
        assert seen["INTERPEDIA_DATA_DIR"] == str(open_folder / "var")
        assert seen["INTERPEDIA_INGEST_URL"] == f"http://127.0.0.1:{run.ports[3]}"
        assert "PGSSLMODE" not in seen


class TestSurviving:
    def test_a_service_and_postgres_come_back_after_kill_9(self, runs: list[Run], open_folder: Path) -> None:
        run = begin(runs, open_folder, None)
        run.wait_until("Ctrl-C stops everything.")
        victim = _pid_of(run, f"stand_in_service.py {run.ports[1]}")
        os.kill(victim, signal.SIGKILL)
        run.wait_until("inference ended (signal SIGKILL) and is started again")
        wait_for(lambda: get(run.ports[1]) == 200, "inference answering again")
        postmaster = _pid_of(run, "bin/postgres -D")
        os.kill(postmaster, signal.SIGKILL)
        run.wait_until("Postgres died and is started again.")
        wait_for(lambda: _pids_of(run, "bin/postgres -D") not in ([], [postmaster]), "a new Postgres")
        assert run.process.poll() is None

    def test_a_child_of_a_dead_service_does_not_stay(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        run = begin(runs, open_folder, database, manners={"worker": ["with-child"]})
        run.wait_until("Ctrl-C stops everything.")
        wait_for(lambda: _pids_of(run, "/bin/sleep 600"), "the worker's child")
        grandchild = _pid_of(run, "/bin/sleep 600")
        os.kill(_pid_of(run, "stand_in_service.py 0"), signal.SIGKILL)
        wait_for(lambda: not is_alive(grandchild), "the grandchild's end")

    def test_a_service_that_keeps_dying_is_given_up(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        run = begin(runs, open_folder, database, manners={"autointerp": ["crash"]})
        assert run.end() == 1
        assert "autointerp ended 3 times within 60 s (exit code 3); the end of" in run.output
        assert "the reason for the crash" in run.output
        assert "Traceback" not in run.output
        assert not processes_of(open_folder / "var")


class TestStopping:
    def test_sigterm_ends_even_a_stubborn_service(
        self, runs: list[Run], open_folder: Path, database: str
    ) -> None:
        run = begin(runs, open_folder, database, manners={"worker": ["stubborn", "with-child"]})
        run.wait_until("Ctrl-C stops everything.")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 0
        assert not processes_of(open_folder / "var")

    def test_a_second_ctrl_c_hurries(self, runs: list[Run], open_folder: Path, database: str) -> None:
        run = begin(runs, open_folder, database, grace=600.0, manners={"worker": ["stubborn"]})
        run.wait_until("Ctrl-C stops everything.")
        run.process.send_signal(signal.SIGINT)
        wait_for(lambda: get(run.ports[0]) == 0, "the stopping")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
        assert "Traceback" not in run.output
        assert not processes_of(open_folder / "var")

    def test_ctrl_c_while_coming_up(self, runs: list[Run], open_folder: Path) -> None:
        run = begin(runs, open_folder, None, migrate="import time; time.sleep(600)")
        run.wait_until("Postgres is up")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
        assert "Traceback" not in run.output
        wait_for(lambda: not processes_of(open_folder / "var"), "nothing left behind")

    def test_kill_9_of_the_launcher_leaves_nothing(self, runs: list[Run], open_folder: Path) -> None:
        run = begin(runs, open_folder, None, manners={"gateway": ["stubborn"]})
        run.wait_until("Ctrl-C stops everything.")
        assert len(processes_of(open_folder / "var")) > 6, "control: they are found while they run"
        run.process.kill()
        run.process.wait()
        wait_for(lambda: not processes_of(open_folder / "var"), "nothing left behind")


class TestRefusing:
    def test_a_second_run_in_the_same_folder(self, runs: list[Run], open_folder: Path, database: str) -> None:
        first = begin(runs, open_folder, database)
        first.wait_until("Ctrl-C stops everything.")
        second = begin(runs, open_folder, database, ports=first.ports)
        assert second.end() == 1
        assert f"is in use by process {first.process.pid}: stop that run first" in second.output
        assert second.output.count("\n") == 1
        assert first.process.poll() is None

    def test_a_port_in_use(self, runs: list[Run], open_folder: Path, database: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            run = begin(
                runs, open_folder, database, ports=[unused_port(), port, unused_port(), unused_port()]
            )
            assert run.end() == 1
        assert run.output == (
            f"interpedia: Port {port}, where inference is to listen, is in use by another program: stop it,"
            " or choose another port with --inference-port.\n"
        )

    def test_a_failing_migration(self, runs: list[Run], open_folder: Path, database: str) -> None:
        run = begin(runs, open_folder, database, migrate="raise SystemExit('revision 7 is not known')")
        assert run.end() == 1
        assert "The step 'migrate' failed (exit code 1)" in run.output
        assert "revision 7 is not known" in run.output
        assert not processes_of(open_folder / "var")

    def test_a_failing_demo(self, runs: list[Run], open_folder: Path, database: str) -> None:
        run = begin(
            runs, open_folder, database, exit_when_ready=True, demo="raise SystemExit('demo: no corpus')"
        )
        assert run.end() == 1
        assert "demo: no corpus\ninterpedia: The demo was not published" in run.output

    def test_a_database_that_is_not_there(self, runs: list[Run], open_folder: Path) -> None:
        url = f"postgresql://someone:secret@127.0.0.1:{unused_port()}/nothing"
        run = begin(runs, open_folder, None, environment={"INTERPEDIA_DATABASE__URL": url})
        assert run.end() == 1
        assert "The database of INTERPEDIA_DATABASE__URL does not let us in" in run.output
        assert "secret" not in run.output


def _pids_of(run: Run, words: str) -> list[int]:
    return [
        pid
        for pid in processes_of(run.data_dir)
        if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    ]


def _pid_of(run: Run, words: str) -> int:
    (pid,) = _pids_of(run, words)
    return pid
