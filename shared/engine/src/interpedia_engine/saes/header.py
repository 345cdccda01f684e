"""The header of a safetensors file, read by hand before anything else touches the file. No torch.

Source: the safetensors format: 8 bytes little-endian length, that many bytes of JSON, then the tensors'
bytes. The library itself accepts a 100 MB header with 400,000 entries; the caps here are what an SAE needs.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from interpedia_engine.errors import BadWeights

MAX_HEADER_BYTES = 256 * 1024
MAX_ENTRIES = 32
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_NAME_CHARS = 100
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header describes it; offsets in bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class WeightsHeader:
    """A checked header: entries are in file order, contiguous, and fill the file exactly."""

    entries: tuple[TensorEntry, ...]
    data_start: int
    n_bytes: int

    def entry(self, name: str) -> TensorEntry | None:
        """Return the entry of that name, if there is one."""
        return next((entry for entry in self.entries if entry.name == name), None)


def read_header(
    path: Path | str, *, max_header_bytes: int = MAX_HEADER_BYTES, max_entries: int = MAX_ENTRIES
) -> WeightsHeader:
    """Read and check the header of a safetensors file.

    Raises:
        BadWeights: the file is something else (a pickle, an archive), its header is too large, malformed,
            names a tensor twice, has a dtype other than F32, F16 and BF16, a tensor without values, or its
            offsets overlap, leave gaps or do not end with the file.
    """
    path = Path(path)
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _refuse_other_formats(start)
        length: int = struct.unpack("<Q", start)[0]
        if length > max_header_bytes:
            raise BadWeights("header", f"claims {length} bytes, more than {max_header_bytes}")
        if 8 + length > n_bytes:
            raise BadWeights("header", f"claims {length} bytes, but the file has {n_bytes}")
        text = file.read(length)
    raw = _parse(text)
    raw.pop("__metadata__", None)
    if len(raw) > max_entries:
        raise BadWeights("header", f"has {len(raw)} tensors, more than {max_entries}")
    entries = sorted(
        (_entry(name, value) for name, value in raw.items()), key=lambda entry: (entry.begin, entry.end)
    )
    _check_contiguous(entries, n_bytes - 8 - length)
    return WeightsHeader(tuple(entries), 8 + length, n_bytes)


def _refuse_other_formats(start: bytes) -> None:
    if start[:4] == b"PK\x03\x04":
        raise BadWeights(
            "weights", "is a zip archive (torch.save or npz), not safetensors; pickles are never read"
        )
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise BadWeights("weights", "is a pickle, not safetensors; pickles are never read")
    if len(start) < 8:
        raise BadWeights("weights", f"has {len(start)} bytes, fewer than a safetensors file needs")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        raw: Any = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadWeights("header", "is not JSON text in UTF-8, so the file is no safetensors file") from error
    if not isinstance(raw, dict):
        raise BadWeights("header", f"must be an object, not {type(raw).__name__}")
    return cast("dict[str, Any]", raw)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadWeights("header", "names a key twice")
    return result


def _entry(name: str, value: Any) -> TensorEntry:
    if len(name) > _MAX_NAME_CHARS or not name.isprintable():
        raise BadWeights(
            "header", f"a tensor's name is unprintable or longer than {_MAX_NAME_CHARS} characters"
        )
    if not isinstance(value, dict) or set(cast("dict[str, Any]", value)) != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        raise BadWeights(name, "its header entry must have exactly dtype, shape and data_offsets")
    fields = cast("dict[str, Any]", value)
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise BadWeights(name, f"has dtype {str(dtype)[:20]}, not one of {', '.join(DTYPE_BYTES)}")
    shape = _sizes(name, "shape", fields["shape"])
    if 0 in shape:
        # Beside a zero, the other sizes take no bytes, so the file would not bound them.
        raise BadWeights(name, f"shape {list(shape)} has a dimension of 0")
    offsets = _sizes(name, "data_offsets", fields["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadWeights(name, f"data_offsets {list(offsets)[:4]} are not a begin and an end")
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if needed != offsets[1] - offsets[0]:
        raise BadWeights(
            name, f"shape {list(shape)} needs {needed} bytes, the header gives {offsets[1] - offsets[0]}"
        )
    return TensorEntry(name, dtype, shape, offsets[0], offsets[1])


def _sizes(name: str, what: str, value: Any) -> tuple[int, ...]:
    items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [None]
    if len(items) > _MAX_DIMENSIONS:
        raise BadWeights(name, f"{what} has {len(items)} numbers, more than {_MAX_DIMENSIONS}")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 1 << 62:
            raise BadWeights(name, f"{what} must be a list of non-negative integers")
    return tuple(items)


def _check_contiguous(entries: list[TensorEntry], n_data_bytes: int) -> None:
    position = 0
    for entry in entries:
        if entry.begin != position:
            kind = "overlaps the tensor before it" if entry.begin < position else "leaves a gap before it"
            raise BadWeights(entry.name, f"starts at byte {entry.begin}, not {position}: it {kind}")
        position = entry.end
    if position != n_data_bytes:
        raise BadWeights(
            "header", f"describes {position} bytes of tensors, but the file holds {n_data_bytes}"
        )
