"""Which processes make up Interpedia on one machine, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interpedia_local.ports import LOOPBACK
from interpedia_local.settings import LocalSettings

SERVED_MODEL = "smollm2-135m-instruct"
"""What the inference service serves, unless INTERPEDIA_MODEL says otherwise: the demo's model."""


@dataclass(frozen=True)
class Ports:
    """Where the services listen on 127.0.0.1."""

    gateway: int = 8000
    inference: int = 8001
    autointerp: int = 8002
    ingest: int = 8003

    def named(self) -> dict[str, int]:
        """Port by service."""
        return {
            "gateway": self.gateway,
            "inference": self.inference,
            "autointerp": self.autointerp,
            "ingest": self.ingest,
        }


@dataclass(frozen=True)
class Service:
    """One child process. Without a port it answers to nobody and counts as ready while it lives."""

    name: str
    arguments: Sequence[str]
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Steps:
    """The commands that run once: before the services, after they are ready, and at last beside them."""

    migrate: Sequence[str]
    create_owner: Sequence[str]
    new_owner_key: Sequence[str]
    demo: Sequence[str] | None
    explanations: Sequence[str] | None = None


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with the interpreter that runs us."""
    return [sys.executable, "-m", module, *arguments]


def default_services(ports: Ports, *, workers: int = 1) -> list[Service]:
    """The four services, the ingest workers, and the worker that explains and scores."""
    services = [
        Service(name, python(f"interpedia_{name}"), port, {"INTERPEDIA_PORT": str(port)})
        for name, port in ports.named().items()
    ]
    for number in range(1, workers + 1):
        name = "ingest-worker" if workers == 1 else f"ingest-worker-{number}"
        services.append(Service(name, python("interpedia_ingest.worker")))
    services.append(Service("autointerp-worker", python("interpedia_autointerp.worker")))
    return services


def default_steps(demo_arguments: Sequence[str] | None, *, url: str) -> Steps:
    """The commands of the project; `demo_arguments` is None for no demo, `url` is the gateway's."""
    has_demo = demo_arguments is not None
    return Steps(
        migrate=python("interpedia_shared.db", "upgrade"),
        create_owner=python("interpedia_shared.accounts", "create-owner"),
        new_owner_key=python("interpedia_shared.accounts", "new-owner-key"),
        demo=python("interpedia_local.demo", *demo_arguments) if has_demo else None,
        explanations=python("interpedia_local.explanations", "--url", url) if has_demo else None,
    )


def shared_environment(
    settings: LocalSettings, *, database_url: str, data_dir: Path, ports: Ports, torch_threads: int | None
) -> dict[str, str]:
    """What every child sees: our environment, and where everything is."""
    # libpq's variables would change how the services reach a database that is given by URL.
    inherited = {name: value for name, value in settings.inherited.items() if not name.startswith("PG")}
    ours = {
        "INTERPEDIA_DATABASE__URL": database_url,
        "INTERPEDIA_DATA_DIR": str(data_dir),
        "INTERPEDIA_HOST": LOOPBACK,
        "INTERPEDIA_LOG_FORMAT": "text",
        "PYTHONUNBUFFERED": "1",
    }
    for name, port in ports.named().items():
        ours[f"INTERPEDIA_{name.upper()}_URL"] = f"http://{LOOPBACK}:{port}"
    if torch_threads is not None:
        ours["INTERPEDIA_TORCH_THREADS"] = str(torch_threads)
    # The key is for the demo only, which gets it by itself.
    inherited.pop("INTERPEDIA_API_KEY", None)
    return {"INTERPEDIA_MODEL": SERVED_MODEL, **inherited, **ours}
