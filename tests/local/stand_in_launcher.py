"""Runs the real launcher with a real Postgres and stand-in services.

Usage: python -m tests.local.stand_in_launcher '{"data_dir": …, "ports": [4], "manners": {service: […]}}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from interpedia import console
from interpedia_local.__main__ import Stopped, StopSignals
from interpedia_local.launcher import Plan, run_plan
from interpedia_local.services import Ports, Service, Steps
from interpedia_local.settings import LocalSettings
from interpedia_local.supervisor import RestartLimits

SERVICE = str(Path(__file__).with_name("stand_in_service.py"))
MAKE_OWNER = """
import os, pathlib, sys
made = pathlib.Path(os.environ["INTERPEDIA_DATA_DIR"], "owner-made")
if not made.exists():
    made.touch()
    sys.stdout.write("key-of-the-owner\\n")
"""
SHOW_DEMO = """
import os, sys
sys.stdout.write("demo with " + os.environ.get("INTERPEDIA_API_KEY", "no key") + "\\n")
"""


def code(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def plan_of(options: dict[str, Any]) -> Plan:
    ports = Ports(*options["ports"])
    manners: dict[str, list[str]] = options.get("manners", {})
    services = [
        Service(name, [sys.executable, SERVICE, str(port), *manners.get(name, [])], port)
        for name, port in ports.named().items()
    ]
    services.append(Service("worker", [sys.executable, SERVICE, "0", *manners.get("worker", [])]))
    return Plan(
        data_dir=Path(options["data_dir"]),
        ports=ports,
        services=services,
        steps=Steps(
            migrate=code(options.get("migrate", "pass")),
            create_owner=code(MAKE_OWNER),
            new_owner_key=code("import sys; sys.stdout.write('a-further-key')"),
            demo=code(options.get("demo", SHOW_DEMO)),
            explanations=code(options["explanations"]) if "explanations" in options else None,
        ),
        settings=LocalSettings.from_environment(),
        exit_when_ready=options.get("exit_when_ready", False),
        limits=RestartLimits(deaths=3, window=60.0, first_pause=0.1, grace=options.get("grace", 1.0)),
    )


def main() -> int:
    signals = StopSignals()
    try:
        signals.listen()
        return run_plan(plan_of(json.loads(sys.argv[1])), signals)
    except Stopped:
        console.write("Stopped.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
