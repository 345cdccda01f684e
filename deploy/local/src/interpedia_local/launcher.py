"""The order of things: lock, ports, Postgres, schema, services, owner, demo; and back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from interpedia import console
from interpedia_local import connection
from interpedia_local.errors import (
    DatabaseFailed,
    DemoFailed,
    LocalError,
    PortInUse,
    ServiceFailed,
    folder_errors,
)
from interpedia_local.folders import FolderLock, make_folder, write_private
from interpedia_local.ports import LOOPBACK, is_free
from interpedia_local.postgres import LocalPostgres
from interpedia_local.processes import Command, spawn
from interpedia_local.services import Ports, Service, Steps, shared_environment
from interpedia_local.settings import LocalSettings
from interpedia_local.supervisor import (
    POLL_SECONDS,
    Deaths,
    RestartLimits,
    Supervisor,
    describe_exit,
    log_tail,
)

READY_SECONDS = 300.0
STEP_SECONDS = 600.0
READY_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """All that a run depends on."""

    data_dir: Path
    ports: Ports
    services: Sequence[Service]
    steps: Steps
    settings: LocalSettings
    torch_threads: int | None = None
    exit_when_ready: bool = False
    limits: RestartLimits = field(default_factory=RestartLimits)


class Launcher:
    """One run of Interpedia on this machine, from `run` to `stop`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = FolderLock(plan.data_dir / "launcher.lock")
        self._postgres: LocalPostgres | None = None
        self._postgres_deaths = Deaths(plan.limits)
        self._supervisor: Supervisor | None = None
        self._client: subprocess.Popen[bytes] | None = None
        self._logs = plan.data_dir / "logs"

    def run(self) -> None:
        """Brings everything up, publishes the demo, and watches until interrupted.

        Raises:
            LocalError: something does not come up, or a service dies too often.
        """
        plan = self._plan
        make_folder(plan.data_dir)
        self._lock.acquire()
        make_folder(self._logs)
        self._require_ports()
        environment = shared_environment(
            plan.settings,
            database_url=self._start_database(),
            data_dir=plan.data_dir,
            ports=plan.ports,
            torch_threads=plan.torch_threads,
        )
        self._step("migrate", plan.steps.migrate, environment)
        key = self._owner_key(environment)
        self._start_services(environment)
        if key:
            environment = {**environment, "INTERPEDIA_API_KEY": key}
        if plan.steps.demo is None:
            console.write(f"Interpedia is up: http://{LOOPBACK}:{plan.ports.gateway}/docs")
        published = plan.steps.demo is not None and self._publish_demo(plan.steps.demo, environment)
        if not plan.exit_when_ready:
            console.write("Ctrl-C stops everything.")
            if published and plan.steps.explanations is not None:
                self._client = spawn(Command(plan.steps.explanations, environment), output=None)
            self._watch(lambda: False)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ends the demo, the services (by force once `hurry()`) and then Postgres; harmless at any moment."""
        client, self._client = self._client, None
        if client is not None:
            client.kill()
            client.wait()
        if self._supervisor is not None:
            self._supervisor.stop(hurry)
        if self._postgres is not None:
            self._postgres.stop()
        self._lock.release()

    def _require_ports(self) -> None:
        for name, port in self._plan.ports.named().items():
            if not is_free(port):
                raise PortInUse(
                    f"Port {port}, where {name} is to listen, is in use by another program: stop it,"
                    f" or choose another port with --{name}-port."
                )

    def _start_database(self) -> str:
        url = self._plan.settings.database_url
        if url is not None:
            if connection.ask(url) is not connection.Answer.READY:
                raise DatabaseFailed(
                    "The database of INTERPEDIA_DATABASE__URL does not let us in: is the URL right?"
                )
            return url
        self._postgres = LocalPostgres(self._plan.data_dir / "postgres")
        self._postgres.start()
        console.write(f"Postgres is up ({self._postgres.cluster.home}).")
        return self._postgres.url

    def _step(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        """Runs a command that must succeed; its errors go to a log, its output is returned."""
        log = self._logs / f"{name}.log"
        with folder_errors(self._logs), log.open("wb") as file:
            process = spawn(Command(arguments, environment), output=subprocess.PIPE, errors=file)
            try:
                output, _ = process.communicate(timeout=STEP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
        if process.returncode != 0:
            how = describe_exit(process.returncode)
            raise ServiceFailed(f"The step '{name}' failed ({how}); the end of {log}:\n{log_tail(log)}")
        return output.decode("utf-8", "replace").strip()

    def _owner_key(self, environment: Mapping[str, str]) -> str | None:
        """The key to publish with: a new owner's, the kept one, or a further one when that was lost."""
        path = self._plan.data_dir / "owner.key"
        key = self._step("create-owner", self._plan.steps.create_owner, environment)
        if not key and self._plan.settings.api_key:
            return self._plan.settings.api_key
        if not key and path.is_file():
            with folder_errors(path.parent):
                return path.read_text(encoding="utf-8").strip()
        if not key:
            console.write(f"The owner exists, but {path} does not: a further key is made.")
            key = self._step("new-owner-key", self._plan.steps.new_owner_key, environment)
        write_private(path, key + "\n")
        console.write(f"The owner's API key, needed for publishing, shown only now: {key}")
        console.write(f"It is kept in {path} (readable by you alone), so that `make run` can publish again.")
        return key

    def _start_services(self, environment: Mapping[str, str]) -> None:
        supervisor = Supervisor(
            self._plan.services, self._logs, environment, limits=self._plan.limits, report=console.complain
        )
        self._supervisor = supervisor
        supervisor.start()
        line = console.ProgressLine("Starting the services", paced=False)
        deadline = time.monotonic() + READY_SECONDS
        total = len(supervisor.children)
        while waiting := supervisor.not_ready():
            self._check()
            line.update(total - len(waiting), total, note="waiting for " + ", ".join(waiting))
            if time.monotonic() > deadline:
                slow = next(child for child in supervisor.children if child.service.name in waiting)
                raise ServiceFailed(
                    f"{slow.service.name} was not ready after {READY_SECONDS:.0f} s; the end of {slow.log}:\n"
                    f"{slow.tail()}"
                )
            time.sleep(READY_POLL_SECONDS)
        line.finish("done")

    def _publish_demo(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Runs the demo as a client of its own, beside our watching; whether it is there now."""
        self._client = spawn(Command(arguments, environment), output=None)
        self._watch(lambda: self._client is None or self._client.poll() is not None)
        code = self._client.wait()
        self._client = None
        if code == 0:
            return True
        if self._plan.exit_when_ready:
            raise DemoFailed("The demo was not published (its reason stands above).")
        console.complain("The demo was not published; the services stay up, and `make run` tries again.")
        return False

    def _watch(self, over: Callable[[], bool]) -> None:
        while not over():
            self._check()
            time.sleep(POLL_SECONDS)

    def _check(self) -> None:
        if self._postgres is not None and not self._postgres.is_running():
            self._restart_postgres(self._postgres)
        if self._supervisor is not None:
            self._supervisor.check()

    def _restart_postgres(self, postgres: LocalPostgres) -> None:
        times = self._postgres_deaths.add()
        if times >= self._plan.limits.deaths:
            raise DatabaseFailed(
                f"Postgres died {times} times within {self._plan.limits.window:.0f} s;"
                f" the end of {postgres.cluster.log}:\n{log_tail(postgres.cluster.log)}"
            )
        console.complain("Postgres died and is started again.")
        postgres.restart()


class Interruptions(Protocol):
    """Who tells us that somebody wants us to stop."""

    def shield(self) -> None:
        """From now on nothing is raised any more: the cleaning up has begun."""
        ...

    def hurry(self) -> bool:
        """True when somebody asked once more."""
        ...


def run_plan(plan: Plan, interruptions: Interruptions) -> int:
    """Runs `plan` to its end and cleans up; returns the exit code."""
    launcher = Launcher(plan)
    try:
        launcher.run()
    except LocalError as error:
        console.complain(f"interpedia: {error}")
        return 1
    finally:
        interruptions.shield()
        launcher.stop(interruptions.hurry)
    return 0
