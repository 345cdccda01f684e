"""From a folder with an SAE to a publication on the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, Required, TypedDict

from interpedia.errors import FileProblem
from interpedia.uploads import Sent


class PublishOptions(TypedDict):
    """What `Client.publish` needs beside the folder."""

    model: Required[str]
    name: Required[str]
    """The SAE's id within the model, e.g. `15-res-4k`."""
    hook: Required[str]
    """Where in the model, e.g. `blocks.15.hook_resid_post`."""
    corpus: Required[str]
    n_tokens: NotRequired[int]
    """How many tokens of the corpus to build the dashboards from; all by default."""
    release: NotRequired[dict[str, Any]]
    resume: NotRequired[str | None]
    """The id of an upload that broke off."""
    progress: NotRequired[Callable[[Sent], None]]


def sae_files(folder: Path) -> list[Path]:
    """The files of an SAE in SAELens' format: `cfg.json` and the safetensors.

    Raises:
        FileProblem: the folder or one of them is missing.
    """
    if not folder.is_dir():
        raise FileProblem(f"{folder} is not a folder: give the one that holds cfg.json and *.safetensors.")
    config = folder / "cfg.json"
    weights = sorted(folder.glob("*.safetensors"))
    if not config.is_file():
        raise FileProblem(f"{folder} holds no cfg.json.")
    if not weights:
        raise FileProblem(f"{folder} holds no *.safetensors; other formats are not accepted.")
    return [config, *weights]


def hook_of(folder: Path) -> str:
    """The hook that an SAE's own `cfg.json` names.

    Raises:
        FileProblem: there is none, or the file cannot be read.
    """
    try:
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileProblem(f"{folder / 'cfg.json'} cannot be read as JSON.") from error
    metadata = config.get("metadata") or {}
    hook = metadata.get("hook_name") or config.get("hook_name")
    if not hook:
        raise FileProblem(f"{folder / 'cfg.json'} names no hook: say it with --hook.")
    return str(hook)
