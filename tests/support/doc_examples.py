"""The examples of a guide, read from its code blocks: what curl would send."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """One request."""

    method: str
    path: str
    body: dict[str, Any] | None
    needs_key: bool

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Guide:
    """A guide's code."""

    requests: list[Example] = field(default_factory=list["Example"])
    python: list[str] = field(default_factory=list[str])


def read_guide(path: Path) -> Guide:
    """All requests of the shell blocks, and the Python blocks, in their order."""
    guide = Guide()
    for language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language == "python":
            guide.python.append(text)
        elif language == "bash":
            guide.requests.extend(_request(line) for line in _commands(text))
    return guide


def _commands(text: str) -> list[list[str]]:
    words = shlex.split(text, comments=True)
    commands: list[list[str]] = []
    for word in words:
        if word in ("curl", "export"):
            commands.append([])
        commands[-1].append(word)
    return [command for command in commands if command[0] == "curl"]


def _request(words: list[str]) -> Example:
    method, body, url, has_key = None, None, "", False
    rest = iter(words[1:])
    for word in rest:
        if word == "-d":
            body = json.loads(next(rest))
        elif word == "-X":
            method = next(rest)
        elif word == "-H":
            has_key = next(rest).startswith("x-api-key:") or has_key
        elif not word.startswith("-"):
            url = word
    path = urlsplit(url.replace("$API", "http://host")).path
    return Example(method or ("GET" if body is None else "POST"), path, body, has_key)
