"""`python -m interpedia_local run`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from interpedia import console
from interpedia_local.launcher import Plan, run_plan
from interpedia_local.ports import LOOPBACK
from interpedia_local.services import Ports, default_services, default_steps
from interpedia_local.settings import LocalSettings

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody asked us to stop."""


class StopSignals:
    """The first signal raises `Stopped` wherever we are; a further one only makes the stopping hurry."""

    def __init__(self) -> None:
        self._count = 0
        self._shielded = False

    def listen(self) -> None:
        """Takes over Ctrl-C, `kill` and a closed terminal."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._received)

    def shield(self) -> None:
        """From now on a signal only counts."""
        self._shielded = True

    def hurry(self) -> bool:
        """True after the second signal."""
        return self._count > 1

    def _received(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._count += 1
        if not self._shielded:
            self._shielded = True
            raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 after Ctrl-C, 1 after one sentence on standard error."""
    options = _parser().parse_args(arguments)
    signals = StopSignals()
    try:
        signals.listen()
        return run_plan(plan_of(options, LocalSettings.from_environment()), signals)
    except Stopped:
        console.write("\nStopped.")
        return 0


def plan_of(options: argparse.Namespace, settings: LocalSettings) -> Plan:
    """The plan for the options of the command line."""
    ports = Ports(
        gateway=options.gateway_port,
        inference=options.inference_port,
        autointerp=options.autointerp_port,
        ingest=options.ingest_port,
    )
    url = f"http://{LOOPBACK}:{ports.gateway}"
    demo = None
    if not options.no_demo:
        demo = ["--url", url, "--examples", str(options.examples), "--tokens", str(options.demo_tokens)]
    return Plan(
        data_dir=options.data_dir.absolute(),
        ports=ports,
        services=default_services(ports, workers=options.workers),
        steps=default_steps(demo, url=url),
        settings=settings,
        torch_threads=options.torch_threads,
        exit_when_ready=options.exit_when_ready,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m interpedia_local")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="start everything and publish the demo")
    run.add_argument("--data-dir", type=Path, default=Path("var"), help="where all data goes (default: var)")
    run.add_argument(
        "--examples", type=Path, default=Path("examples"), help="the folder with the demo's files"
    )
    run.add_argument(
        "--demo-tokens", type=_count, default=65536, help="tokens that the demo's dashboards are built from"
    )
    run.add_argument("--no-demo", action="store_true", help="start the services only")
    run.add_argument("--exit-when-ready", action="store_true", help="stop again once the demo is published")
    run.add_argument("--workers", type=_count, default=1, help="ingest workers (default: 1)")
    run.add_argument("--torch-threads", type=_count, help="threads of torch in each service that uses it")
    for name, port in Ports().named().items():
        run.add_argument(f"--{name}-port", type=_port, default=port, help=f"where {name} listens ({port})")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
