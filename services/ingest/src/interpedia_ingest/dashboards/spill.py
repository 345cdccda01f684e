"""Spill files: all non-zero activations of one SAE on one shard of contexts, sorted by (feature, row,
position).

Layout: 8 magic bytes, the header's length as u32, the header as JSON, then the arrays, little-endian, each at
a multiple of 64 bytes. The same input gives the same bytes. A file appears whole or not at all (rename).
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.errors import BadSpill
from interpedia_ingest.dashboards.hashing import digest_of

_MAGIC = b"IPSPILL1"
_LENGTH = struct.Struct("<I")
_ALIGN = 64
_MAX_HEADER = 1 << 20

ARRAYS: dict[str, np.dtype[Any]] = {
    "feature_offsets": np.dtype("<u8"),
    "tokens": np.dtype("<u4"),
    "values": np.dtype("<f4"),
    "counted": np.dtype("u1"),
    "reconstruction_sums": np.dtype("<f8"),
    "reconstruction_means": np.dtype("<f8"),
}
"""Arrays of a spill and their types.

- `feature_offsets` [d_sae + 1]: feature f owns the slice `[f]:[f + 1]` of `tokens` and `values`.
- `tokens` [n_nonzero]: (row - first_row) * context_length + position, ascending within a feature.
- `values` [n_nonzero]: activations in the SAE's own scale.
- `counted` [n_rows, ceil(context_length / 8)]: one bit a position (most significant first), 1 = it counts.
- `reconstruction_sums` [n_groups, 3]: per measured group of 32 rows the measured tokens, the sum of squared
  errors and the sum of squares of what is reconstructed.
- `reconstruction_means` [n_groups, d_out]: sums over those tokens of what is reconstructed.
"""


@dataclass(frozen=True, slots=True)
class SpillHeader:
    """What a spill belongs to and how large it is."""

    sae: str
    weights: str
    """Digest of the SAE's weights, as the caller states it."""
    settings: str
    """`DashboardSettings.digest()`."""
    rows: str
    """`Selection.digest` of the shard's rows."""
    first_row: int
    n_rows: int
    context_length: int
    d_sae: int
    d_out: int
    n_nonzero: int
    n_counted: int


@dataclass(frozen=True, slots=True)
class Spill:
    """An open spill file; the arrays are mapped, not read."""

    path: Path
    header: SpillHeader
    digest: str
    arrays: Mapping[str, NDArray[Any]]

    @property
    def stop_row(self) -> int:
        """First row after the shard."""
        return self.header.first_row + self.header.n_rows

    @property
    def feature_offsets(self) -> NDArray[np.int64]:
        """Where each feature begins in `tokens` and `values`; shape [d_sae + 1]."""
        return self.arrays["feature_offsets"].astype(np.int64)

    def counted(self) -> NDArray[np.bool_]:
        """Which positions count; shape [n_rows, context_length]."""
        bits = np.unpackbits(self.arrays["counted"], axis=1, count=self.header.context_length)
        return bits.astype(np.bool_)

    def verify(self) -> None:
        """Read the whole file and compare it with the digest in its header.

        Raises:
            BadSpill: the arrays are not those that were written.
        """
        if _digest(self.header, self.arrays) != self.digest:
            raise BadSpill("digest", f"{self.path.name} does not hold what its header says")


def write_spill(path: Path, header: SpillHeader, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write a spill durably and return its digest; an existing file is replaced."""
    typed = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in ARRAYS.items()}
    digest = _digest(header, typed)
    layout: list[dict[str, Any]] = []
    at = 0
    for name, array in typed.items():
        layout.append({"name": name, "shape": list(array.shape), "at": at})
        at += _padded(array.nbytes)
    content = {"header": dataclasses.asdict(header), "arrays": layout, "bytes": at, "sha256": digest}
    text = json.dumps(content, sort_keys=True).encode()
    lead = _MAGIC + _LENGTH.pack(len(text)) + text
    _replace(path, [lead, bytes(_padded(len(lead)) - len(lead)), *_padded_parts(typed)])
    return digest


def open_spill(path: Path) -> Spill:
    """Open a spill and check that it is whole and self-consistent (its digest is checked by `verify` only).

    Raises:
        BadSpill: this is no spill, it is cut or longer than it says, or its parts contradict one another.
    """
    raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    content, base = _read_head(path, raw)
    if len(raw) != base + content["bytes"]:
        raise BadSpill(
            "bytes", f"{path.name} has {len(raw)} bytes, its header says {base + content['bytes']}"
        )
    try:
        header = SpillHeader(**content["header"])
        arrays = {entry["name"]: _array(raw, base, entry) for entry in content["arrays"]}
        digest = str(content["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadSpill("header", f"{path.name} has a header that does not describe a spill") from error
    _check_shapes(path, header, arrays)
    return Spill(path, header, digest, arrays)


def check_spills(spills: Sequence[Spill]) -> None:
    """Check that spills, in row order, are the whole of one build of one SAE.

    Raises:
        BadSpill: none is given, rows are missing or twice there, or they belong to different builds.
    """
    if not spills:
        raise BadSpill("spills", "none is given")
    first = spills[0].header
    row = 0
    for spill in spills:
        header = spill.header
        if header.first_row != row:
            raise BadSpill(
                "first_row", f"{spill.path.name} begins at row {header.first_row}, {row} is wanted"
            )
        row = spill.stop_row
        for name in ("sae", "weights", "settings", "context_length", "d_sae", "d_out"):
            if getattr(header, name) != getattr(first, name):
                raise BadSpill(name, f"{spill.path.name} differs from {spills[0].path.name}")


def _digest(header: SpillHeader, arrays: Mapping[str, NDArray[Any]]) -> str:
    text = json.dumps(dataclasses.asdict(header), sort_keys=True).encode()
    return digest_of([text, *(arrays[name].tobytes() for name in ARRAYS)])


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _padded_parts(arrays: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for array in arrays.values():
        parts += [array.tobytes() if array.nbytes < _ALIGN else array.reshape(-1).view(np.uint8).data]
        parts += [bytes(_padded(array.nbytes) - array.nbytes)]
    return parts


def _replace(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_head(path: Path, raw: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    lead = len(_MAGIC) + _LENGTH.size
    if len(raw) < lead or raw[: len(_MAGIC)].tobytes() != _MAGIC:
        raise BadSpill("magic", f"{path.name} is no spill file")
    (length,) = _LENGTH.unpack(raw[len(_MAGIC) : lead].tobytes())
    if length > _MAX_HEADER:
        raise BadSpill(
            "header", f"{path.name} says its header has {length} bytes, at most {_MAX_HEADER} are read"
        )
    try:
        content = json.loads(raw[lead : lead + length].tobytes())
    except ValueError as error:
        raise BadSpill("header", f"{path.name} has a header that is no JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("bytes"), int):
        raise BadSpill("header", f"{path.name} has a header without a size")
    return content, _padded(lead + length)


def _array(raw: NDArray[np.uint8], base: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype = ARRAYS[entry["name"]]
    shape = tuple(int(size) for size in entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    start = base + int(entry["at"])
    return raw[start : start + count * dtype.itemsize].view(np.ndarray).view(dtype).reshape(shape)


def _check_shapes(path: Path, header: SpillHeader, arrays: Mapping[str, NDArray[Any]]) -> None:
    groups = len(arrays["reconstruction_sums"]) if "reconstruction_sums" in arrays else 0
    wanted = {
        "feature_offsets": (header.d_sae + 1,),
        "tokens": (header.n_nonzero,),
        "values": (header.n_nonzero,),
        "counted": (header.n_rows, -(-header.context_length // 8)),
        "reconstruction_sums": (groups, 3),
        "reconstruction_means": (groups, header.d_out),
    }
    for name, shape in wanted.items():
        found = arrays[name].shape if name in arrays else None
        if found != shape:
            raise BadSpill(name, f"{path.name} has shape {found}, its header asks for {shape}")
    offsets = arrays["feature_offsets"]
    if int(offsets[0]) or int(offsets[-1]) != header.n_nonzero or bool((offsets[1:] < offsets[:-1]).any()):
        raise BadSpill("feature_offsets", f"{path.name} has offsets that do not divide {header.n_nonzero}")
