"""How the files of an upload are cut into parts, and which files may be sent at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interpedia_ingest.refusals import refuse
from interpedia_shared.contracts.publishing import UploadedFile
from interpedia_shared.problems import BadUpload, TooLarge

UploadKind = Literal["sae", "corpus"]
MAX_CONFIG_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_WANTED = {
    "sae": "'cfg.json' and '*.safetensors'; pickled weights (.pt, .bin, .pkl, .npz) are never read",
    "corpus": "'*.jsonl' and '*.jsonl.xz'",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part: bytes `offset` to `offset + size` of file number `file` (from 0)."""

    n: int
    file: int
    offset: int
    size: int


def plan_parts(sizes: Sequence[int], part_bytes: int) -> list[Part]:
    """Cut files into parts numbered through from 1."""
    parts: list[Part] = []
    for number, size in enumerate(sizes):
        for offset in range(0, size, part_bytes):
            parts.append(Part(len(parts) + 1, number, offset, min(part_bytes, size - offset)))
    return parts


def check_files(kind: UploadKind, files: Sequence[UploadedFile], *, max_bytes: int) -> None:
    """Refuse names that are not on the list, and sizes over the limits.

    Raises:
        BadUpload: a name, or a set of files that makes no upload of this kind.
        TooLarge: the files are too large.
    """
    for number, file in enumerate(files):
        if not _is_allowed(kind, file.name):
            raise refuse(BadUpload, f"#/files/{number}/name", f"{file.name!r} is not one of {_WANTED[kind]}")
        if file.name == "cfg.json" and file.size > MAX_CONFIG_BYTES:
            raise _too_large(f"#/files/{number}/size", file.size, MAX_CONFIG_BYTES)
    names = [file.name for file in files]
    if len(set(names)) != len(names):
        raise refuse(BadUpload, "#/files", "two files have the same name")
    if kind == "sae" and "cfg.json" not in names:
        raise refuse(BadUpload, "#/files", "'cfg.json' is missing")
    if kind == "corpus" and len(names) != 1:
        raise refuse(BadUpload, "#/files", f"a corpus is one file, not {len(names)}")
    total = sum(file.size for file in files)
    if total > max_bytes:
        raise _too_large("#/files", total, max_bytes)


def _is_allowed(kind: UploadKind, name: str) -> bool:
    if not _NAME.fullmatch(name) or ".." in name:
        return False
    if kind == "sae":
        return name == "cfg.json" or name.endswith(".safetensors")
    return name.endswith((".jsonl", ".jsonl.xz"))


def _too_large(field: str, size: int, limit: int) -> TooLarge:
    return TooLarge(
        f"{field}: {size} bytes are over the limit of {limit}.",
        extensions={
            "limit_bytes": limit,
            "body_bytes": size,
            "errors": [{"field": field, "detail": f"{size} bytes, at most {limit}"}],
        },
    )
