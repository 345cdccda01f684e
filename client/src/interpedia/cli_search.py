"""`interpedia search` and `interpedia explanations`."""

from __future__ import annotations

import argparse
from typing import Any

from interpedia import console
from interpedia.client import Client
from interpedia.search import SearchFilters

MODES = ("hybrid", "semantic", "keyword")
ROLES = ("input", "output", "both")
_FILTERS = ("model", "sae", "release", "author", "min_score", "min_density", "max_density")


def search(client: Client, options: argparse.Namespace) -> int:
    """`interpedia search`: the features found, one line each."""
    filters: SearchFilters = {"mode": options.mode, "limit": options.limit}
    for name in _FILTERS:
        value = getattr(options, name)
        if value is not None:
            filters[name] = value
    found = client.search(options.query, **filters)
    if found.note:
        console.complain(f"interpedia: {found.note}")
    for hit in found.items:
        lists = "+".join(match.to_dict()["by"] for match in hit.matches)
        console.write(f"{hit.score:.4f}  {hit.ref}  {lists}  {hit.text or _tokens(hit.to_dict())}".rstrip())
    return 0


def explanations(client: Client, options: argparse.Namespace) -> int:
    """`interpedia explanations`: what is said about a feature; with `--add`, say something."""
    if options.add is not None:
        client.explanations.add(options.ref, options.add, role=options.role)
    for one in client.explanations.list(options.ref):
        mark = "*" if one.is_default else " "
        score = "     " if one.best_score is None else f"{one.best_score:5.2f}"
        console.write(f"{mark} {one.id:>8}  {score}  {one.method} ({one.author})  {one.text}")
    return 0


def _tokens(hit: dict[str, Any]) -> str:
    """The tokens of a feature that nobody has explained."""
    shown = dict.fromkeys(token["token"] for token in (*hit["top_logits"][:5], *hit["peak_tokens"][:5]))
    return "tokens: " + " ".join(ascii(token) for token in shown)


def add_commands(commands: Any) -> None:
    """Add both to the parser of the command line; argparse has no public type for what it is given."""
    found = commands.add_parser("search", help="find features by what they do, by tokens or by name")
    found.add_argument("query")
    found.add_argument("--mode", choices=MODES, default="hybrid")
    found.add_argument("--limit", type=int, default=20, help="how many (default: 20)")
    found.add_argument("--model", help="only this model")
    found.add_argument("--sae", help="only this SAE of the model")
    found.add_argument("--release", help="only SAEs of this release")
    found.add_argument("--author", help="only explanations of this account")
    for name in ("--min-score", "--min-density", "--max-density"):
        found.add_argument(name, type=float)
    found.set_defaults(run=search)

    said = commands.add_parser("explanations", help="list what is said about a feature, or say something")
    said.add_argument("ref", help="model/sae/index, or a URL")
    said.add_argument("--add", metavar="TEXT", help="add an explanation of your own")
    said.add_argument("--role", choices=ROLES, help="of the one added: when it fires, what it does, or both")
    said.set_defaults(run=explanations)
