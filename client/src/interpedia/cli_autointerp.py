"""`interpedia explain` and `interpedia redteam`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from interpedia import console
from interpedia.autointerp import RedTeamOptions
from interpedia.client import Client
from interpedia.schemas import Job, Work

FREE_METHOD, FREE_SCORER = "token-lookup", "rule"
"""What `explain` takes when nothing is said: they need no LLM."""


def explain(client: Client, options: argparse.Namespace) -> int:
    """`interpedia explain`: features or whole SAEs, by methods; with `--dry-run` what it may cost."""
    saes = [ref for ref in options.ref if ref.count("/") == 1]
    features = [ref for ref in options.ref if ref not in saes]
    chosen: dict[str, Any] = {"saes": saes} if saes and not features else {"features": options.ref}
    if options.sample is not None:
        chosen["sample"] = options.sample
    if options.tokens is not None:
        chosen["budget"] = {"tokens": options.tokens}
    methods = options.method or [FREE_METHOD]
    scorers = options.scorer or ([] if options.method else [FREE_SCORER])
    work = client.autointerp.explain(
        methods, scorers, endpoint=options.endpoint, dry_run=options.dry_run, **chosen
    )
    if work.estimate is not None:
        console.write(json.dumps(work.estimate.to_dict(), indent=2))
        return 0
    job = _followed(client, work, "Explaining")
    console.write(json.dumps(job.result or {}, indent=2))
    return 0


def redteam(client: Client, options: argparse.Namespace) -> int:
    """`interpedia redteam`: put a sentence about a feature to the test."""
    fire = [{"text": text, "intent": "should_fire"} for text in options.fires]
    silent = [{"text": text, "intent": "should_not_fire"} for text in options.silent]
    order: RedTeamOptions = {"feature": options.ref, "hypothesis": options.hypothesis, "texts": fire + silent}
    order["endpoint"] = None if options.no_llm else options.endpoint
    work = client.autointerp.redteam(**order)
    job = _followed(client, work, "Testing")
    for found in ((job.result or {}).get("report") or {}).get("rounds", ()):
        console.write(f"round {found['round']}: {found['outcome']}  {found['text']}")
        for each in found["refuted_by"]:
            console.write(f"  {each['intent']} {each['quantile'] or 0:.2f}  {each['text']!a}")
    return 0


def _followed(client: Client, work: Work, label: str) -> Job:
    assert work.job is not None
    line = console.ProgressLine(label)
    job = client.jobs.wait(
        work.job.id, progress=lambda seen: line.update(seen.done, seen.total, note=seen.stage or seen.state)
    )
    line.finish("done")
    return job


def add_commands(commands: Any) -> None:
    """Add both to the parser of the command line; argparse has no public type for what it is given."""
    said = commands.add_parser("explain", help="have features explained and the explanations scored")
    said.add_argument("ref", nargs="+", help="model/sae/index, or model/sae for all of an SAE")
    said.add_argument("--method", action="append", help=f"may be repeated (default: {FREE_METHOD}, no LLM)")
    said.add_argument("--scorer", action="append", help=f"may be repeated (default: {FREE_SCORER})")
    said.add_argument("--sample", type=int, help="so many of the SAE's features")
    said.add_argument("--tokens", type=int, help="most tokens that an LLM may take")
    said.add_argument("--endpoint", default="default", help="the LLM, where a method needs one")
    said.add_argument("--dry-run", action="store_true", help="only say what it may cost")
    said.set_defaults(run=explain)

    tried = commands.add_parser("redteam", help="try to refute what is said of a feature")
    tried.add_argument("ref", help="model/sae/index, or a URL")
    tried.add_argument("hypothesis")
    tried.add_argument("--fires", action="append", default=[], metavar="TEXT", help="should fire it")
    tried.add_argument("--silent", action="append", default=[], metavar="TEXT", help="should not fire it")
    tried.add_argument("--endpoint", default="default", help="the LLM that writes more texts")
    tried.add_argument("--no-llm", action="store_true", help="your own texts alone")
    tried.set_defaults(run=redteam)
