"""A feature's direction, read straight from its SAE's file: one row of bytes, no torch."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from interpedia_shared.problems import Unavailable

Which = Literal["decoder", "encoder"]
TENSORS: dict[Which, str] = {"decoder": "W_dec", "encoder": "W_enc"}
_MAX_HEADER_BYTES = 256 * 1024
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


class NoTensor(KeyError):
    """The file has no such tensor: an architecture without an encoder of its own."""


@dataclass(frozen=True, slots=True)
class Direction:
    """A vector and how the file stores it."""

    values: NDArray[np.float32]  # [d]
    dtype: str


def read_direction(file: Path, which: Which, index: int) -> Direction:
    """Row `index` of W_dec [d_sae, d_out], or column `index` of W_enc [d_in, d_sae].

    Raises:
        NoTensor: the file has no encoder or decoder.
        Unavailable: the file is not where it should be, or is not what was taken in.
    """
    try:
        return _read(file, which, index)
    except NoTensor:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        raise Unavailable("The SAE's weights cannot be read right now.", retry_after_s=30) from error


def _read(file: Path, which: Which, index: int) -> Direction:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _MAX_HEADER_BYTES:
            raise ValueError("header too long")
        header: dict[str, Any] = orjson.loads(stream.read(length))
    entry = header.get(TENSORS[which])
    if entry is None:
        raise NoTensor(TENSORS[which])
    rows, columns = entry["shape"]
    matrix: NDArray[Any] = np.memmap(
        file,
        dtype=_DTYPES[entry["dtype"]],
        mode="r",
        offset=8 + length + entry["data_offsets"][0],
        shape=(rows, columns),
    )
    stored = np.array(matrix[index] if which == "decoder" else matrix[:, index])
    return Direction(_to_float(stored, entry["dtype"]), entry["dtype"])


def _to_float(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def unit_direction(width: int, index: int) -> Direction:
    """The direction of a raw neuron: itself."""
    values = np.zeros(width, np.float32)
    values[index] = 1.0
    return Direction(values, "F32")
