"""The `interpedia` command."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interpedia import cli_autointerp, cli_search, console
from interpedia.client import Client
from interpedia.errors import BadReference, InterpediaError, Unauthorized
from interpedia.live import Intervention
from interpedia.publishing import PublishOptions, hook_of
from interpedia.schemas import Job
from interpedia.settings import Settings
from interpedia.transport import RetryPolicy
from interpedia.uploads import Sent

# Somebody sits in front of it.
RETRY = RetryPolicy(attempts=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, or 1 after one sentence on standard error."""
    options = _parser().parse_args(arguments)
    settings = Settings.from_environment()
    try:
        key = options.api_key or settings.api_key
        with Client(options.url or settings.url, key, retry=RETRY) as client:
            return int(options.run(client, options))
    except Unauthorized as error:
        console.complain(f"interpedia: {error} (give a key with --api-key or INTERPEDIA_API_KEY)")
    except InterpediaError as error:
        console.complain(f"interpedia: {error}")
    except BrokenPipeError:  # whoever read us has seen enough: `interpedia top … | head`
        console.abandon()
    except KeyboardInterrupt:
        console.complain("interpedia: stopped; what was begun on the server goes on there.")
    return 1


def publish(client: Client, options: argparse.Namespace) -> int:
    """`interpedia publish`: upload, publish and follow the build."""
    line = console.ProgressLine("Uploading")
    wanted: PublishOptions = {
        "model": options.model,
        "name": options.name,
        "hook": options.hook or hook_of(Path(options.path)),
        "corpus": options.corpus,
        "resume": options.resume,
        "progress": lambda sent: _show_upload(line, sent),
    }
    if options.n_tokens is not None:
        wanted["n_tokens"] = options.n_tokens
    publication = client.publish(Path(options.path), **wanted)
    line.finish("done")
    if not options.no_wait:
        follow(client, publication.job.id)
    for sae in publication.saes:
        console.write(f"{client.base_url}/v1/models/{sae.model}/saes/{sae.sae}/features")
    return 0


def jobs(client: Client, options: argparse.Namespace) -> int:
    """`interpedia jobs`: one line per job; with an id, follow that one."""
    if options.id is not None:
        follow(client, options.id)
        return 0
    for job in client.jobs.list(state=options.state):
        console.write(
            f"{job.id}  {job.state:<9}  {job.fraction:4.0%}  {job.kind}  {job.reason or ''}".rstrip()
        )
    return 0


def feature(client: Client, options: argparse.Namespace) -> int:
    """`interpedia feature`: the dashboard as JSON."""
    console.write(json.dumps(client.features.get(options.ref).to_dict(), indent=2, ensure_ascii=False))
    return 0


def top(client: Client, options: argparse.Namespace) -> int:
    """`interpedia top`: the features that a text activates most, one line each."""
    found = client.live.top_features(options.model, options.text, options.sae, k=options.k).to_dict()
    for one in found["results"]:
        density = "" if one["density"] is None else f"{one['density']:9.5f}"
        shown = json.dumps(one["token"], ensure_ascii=False)
        console.write(
            f"{one['value']:9.3f}  {density:9}  {one['ref']}  at {shown}  {one['explanation'] or ''}".rstrip()
        )
    return 0


def steer(client: Client, options: argparse.Namespace) -> int:
    """`interpedia steer`: default and steered continuation of a prompt."""
    answer = client.live.steer(
        options.model,
        prompt=options.prompt,
        interventions=[_added(text) for text in options.add],
        max_new_tokens=options.tokens,
        temperature=options.temperature,
        seed=options.seed,
    )
    for name, output in (("default", answer.default), ("steered", answer.steered)):
        if output is not None:
            console.write(f"{name}: {options.prompt}{output.text}")
    return 0


def _added(text: str) -> Intervention:
    """`sae/feature=strength` as an intervention."""
    name, _, strength = text.partition("=")
    sae, _, feature = name.rpartition("/")
    try:
        amount = float(strength or 1)
        if not math.isfinite(amount):
            raise ValueError(strength)
        return {"sae": sae, "feature": int(feature), "method": "add", "strength": amount}
    except ValueError as error:
        raise BadReference(f"{text!r} is not SAE/FEATURE=STRENGTH, such as 15-res-3k/650=1.5.") from error


def follow(client: Client, job_id: str) -> Job:
    """Shows the progress of a job until it ends."""
    line = console.ProgressLine("Building")
    job = client.jobs.wait(
        job_id, progress=lambda seen: line.update(seen.done, seen.total, note=seen.stage or seen.state)
    )
    line.finish("done")
    return job


def _show_upload(line: console.ProgressLine, sent: Sent) -> None:
    line.update(sent.done / 1e6, sent.total / 1e6, unit="MB")


def _add_publish(commands: Any) -> None:
    one = commands.add_parser("publish", help="publish the SAE in a folder (cfg.json and *.safetensors)")
    one.add_argument("path", help="the folder")
    one.add_argument("--model", required=True, help="the model's id on the server")
    one.add_argument("--name", required=True, help="the SAE's id within the model, e.g. 15-res-4k")
    one.add_argument("--hook", help="where in the model (default: what cfg.json says)")
    one.add_argument("--corpus", required=True, help="the corpus to build dashboards from")
    one.add_argument("--n-tokens", type=int, help="how many tokens of the corpus to use (default: all)")
    one.add_argument("--resume", metavar="ID", help="continue an upload that broke off")
    one.add_argument("--no-wait", action="store_true", help="do not wait for the dashboards")
    one.set_defaults(run=publish)


def _add_steer(commands: Any) -> None:
    changed = commands.add_parser("steer", help="continue a prompt, as it is and steered")
    changed.add_argument("model", help="the model's id")
    changed.add_argument("prompt")
    changed.add_argument(
        "--add",
        action="append",
        required=True,
        metavar="SAE/FEATURE=STRENGTH",
        help="add a feature; 1 is its largest activation on the corpus; may be repeated",
    )
    changed.add_argument("--tokens", type=int, default=32, help="how many new tokens (default: 32)")
    changed.add_argument("--temperature", type=float, default=0.7)
    changed.add_argument("--seed", type=int, default=0)
    changed.set_defaults(run=steer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="interpedia", description="Read and publish features of neural networks."
    )
    parser.add_argument("--url", help="the server (default: INTERPEDIA_URL, or http://127.0.0.1:8000)")
    parser.add_argument("--api-key", help="the key for writing (default: INTERPEDIA_API_KEY)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_publish(commands)

    several = commands.add_parser("jobs", help="list jobs, or follow one")
    several.add_argument("id", nargs="?", help="follow this job")
    several.add_argument("--state", help="only jobs in this state")
    several.set_defaults(run=jobs)

    _add_live_commands(commands)
    cli_search.add_commands(commands)
    cli_autointerp.add_commands(commands)

    single = commands.add_parser("feature", help="show the dashboard of a feature as JSON")
    single.add_argument("ref", help="model/sae/index, or a URL")
    single.set_defaults(run=feature)
    return parser


def _add_live_commands(commands: Any) -> None:
    """`top` and `steer`; argparse has no public type for what it is given."""
    seen = commands.add_parser("top", help="show the features that a text activates most")
    seen.add_argument("model", help="the model's id")
    seen.add_argument("text")
    seen.add_argument("--sae", action="append", required=True, help="an SAE of the model; may be repeated")
    seen.add_argument("--k", type=int, default=10, help="how many (default: 10)")
    seen.set_defaults(run=top)

    _add_steer(commands)


if __name__ == "__main__":
    sys.exit(main())
