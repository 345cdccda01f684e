"""The one place that writes and reads the `stats` and `examples` blobs of table `feature`.

A blob is a format byte followed by a deflated, little-endian, fixed-order payload. A reader keeps every
format that was ever written; a writer only writes the newest.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.dashboards.model import Coactive, Examples, FeatureStats, Histogram, Ranked

STATS_FORMAT = 1
EXAMPLES_FORMAT = 1
_LEVEL = 6
_STATS_HEAD = struct.Struct("<IIddff")
_EXAMPLES_HEAD = struct.Struct("<IIfBB")
_SMALLEST_FRACTION = 2.0**-14
"""Below it a half-precision number loses bits, down to becoming zero."""
_U32, _U16, _U8, _F16, _F32 = (np.dtype(code) for code in ("<u4", "<u2", "u1", "<f2", "<f4"))


class CorruptBlob(ValueError):
    """A stored blob has an unknown format byte or does not hold what its header says."""


class _Reader:
    """Take typed arrays off a payload, never past its end."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def head(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._bytes(layout.size))

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self._bytes(dtype.itemsize * count), dtype=dtype)

    def sized(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        (count,) = struct.unpack("<H", self._bytes(2))
        return self.array(dtype, count)

    def done(self) -> None:
        if self._at != len(self._payload):
            raise CorruptBlob(f"{len(self._payload) - self._at} bytes left over after the last field")

    def _bytes(self, size: int) -> bytes:
        part = self._payload[self._at : self._at + size]
        if len(part) != size:
            raise CorruptBlob(f"payload ends {size - len(part)} bytes early")
        self._at += size
        return part


def _sized(values: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return struct.pack("<H", len(values)) + values.astype(dtype).tobytes()


def _seal(version: int, payload: bytes) -> bytes:
    return bytes([version]) + zlib.compress(payload, _LEVEL)


def _open(blob: bytes, version: int) -> _Reader:
    if not blob or blob[0] != version:
        raise CorruptBlob(f"format byte {blob[0] if blob else None}, this reader knows {version}")
    try:
        return _Reader(zlib.decompress(blob[1:]))
    except zlib.error as error:
        raise CorruptBlob(f"payload does not inflate: {error}") from error


def _histogram_bytes(histogram: Histogram) -> bytes:
    return struct.pack("<ff", histogram.low, histogram.high) + _sized(histogram.counts, _U32)


def _read_histogram(reader: _Reader) -> Histogram:
    low, high = reader.head(struct.Struct("<ff"))
    return Histogram(low=low, high=high, counts=reader.sized(_U32))


def _ranked_bytes(ranked: Ranked) -> bytes:
    return _sized(ranked.ids, _U32) + ranked.values.astype(_F32).tobytes()


def _read_ranked(reader: _Reader) -> Ranked:
    ids = reader.sized(_U32)
    return Ranked(ids=ids, values=reader.array(_F32, len(ids)))


def encode_stats(stats: FeatureStats) -> bytes:
    """Pack one feature's numbers."""
    head = _STATS_HEAD.pack(
        stats.n_active_tokens,
        stats.n_active_contexts,
        stats.activation_sum,
        stats.activation_sum_squares,
        stats.min_activation,
        stats.max_activation,
    )
    coactive = stats.coactive
    return _seal(
        STATS_FORMAT,
        b"".join(
            (
                head,
                _sized(stats.interval_counts, _U32),
                _histogram_bytes(stats.activation_histogram),
                _histogram_bytes(stats.logit_histogram),
                _ranked_bytes(stats.top_logits),
                _ranked_bytes(stats.bottom_logits),
                _ranked_bytes(stats.cosine_neighbours),
                _sized(coactive.ids, _U32),
                coactive.pearson.astype(_F32).tobytes(),
                coactive.counts.astype(_U32).tobytes(),
            )
        ),
    )


def decode_stats(blob: bytes) -> FeatureStats:
    """Unpack one feature's numbers.

    Raises:
        CorruptBlob: unknown format, or the payload is cut or too long.
    """
    reader = _open(blob, STATS_FORMAT)
    head = reader.head(_STATS_HEAD)
    stats = FeatureStats(
        n_active_tokens=head[0],
        n_active_contexts=head[1],
        activation_sum=head[2],
        activation_sum_squares=head[3],
        min_activation=head[4],
        max_activation=head[5],
        interval_counts=reader.sized(_U32),
        activation_histogram=_read_histogram(reader),
        logit_histogram=_read_histogram(reader),
        top_logits=_read_ranked(reader),
        bottom_logits=_read_ranked(reader),
        cosine_neighbours=_read_ranked(reader),
        coactive=_read_coactive(reader),
    )
    reader.done()
    return stats


def _read_coactive(reader: _Reader) -> Coactive:
    ids = reader.sized(_U32)
    return Coactive(ids=ids, pearson=reader.array(_F32, len(ids)), counts=reader.array(_U32, len(ids)))


def encode_examples(examples: Examples) -> bytes:
    """Pack one feature's examples.

    Values become half-precision fractions of the largest magnitude, or stay as they are where a fraction
    would be too small for that: either way the relative error is below 2**-11 and what is not zero stays so.
    """
    scale, value_type = _value_encoding(examples.values)
    lengths = np.diff(examples.offsets)
    position_type = _U8 if not len(examples.positions) or int(examples.positions.max()) < 256 else _U16
    head = _EXAMPLES_HEAD.pack(
        len(examples), len(examples.positions), scale, position_type.itemsize, value_type.itemsize
    )
    return _seal(
        EXAMPLES_FORMAT,
        b"".join(
            (
                head,
                examples.contexts.astype(_U32).tobytes(),
                examples.reasons.astype(_U8).tobytes(),
                examples.repeats.astype(_U8).tobytes(),
                lengths.astype(_U16).tobytes(),
                examples.positions.astype(position_type).tobytes(),
                (examples.values / np.float32(scale)).astype(value_type).tobytes(),
            )
        ),
    )


def _value_encoding(values: NDArray[np.float32]) -> tuple[float, np.dtype[Any]]:
    magnitudes = np.abs(values[values != 0])
    if not len(magnitudes):
        return 1.0, _F16
    scale = float(magnitudes.max())
    return (1.0, _F32) if float(magnitudes.min()) / scale < _SMALLEST_FRACTION else (scale, _F16)


def decode_examples(blob: bytes) -> Examples:
    """Unpack one feature's examples.

    Raises:
        CorruptBlob: unknown format, or counts that contradict each other.
    """
    reader = _open(blob, EXAMPLES_FORMAT)
    count, nnz, scale, position_bytes, value_bytes = reader.head(_EXAMPLES_HEAD)
    if position_bytes not in (1, 2) or value_bytes not in (2, 4):
        raise CorruptBlob(f"positions of {position_bytes} bytes, values of {value_bytes}")
    contexts = reader.array(_U32, count)
    reasons = reader.array(_U8, count)
    repeats = reader.array(_U8, count).astype(np.bool_)
    offsets = np.zeros(count + 1, np.uint32)
    np.cumsum(reader.array(_U16, count), out=offsets[1:])
    if int(offsets[-1]) != nnz:
        raise CorruptBlob(f"examples hold {int(offsets[-1])} activations, header says {nnz}")
    positions = reader.array(_U8 if position_bytes == 1 else _U16, nnz).astype(np.uint16)
    values = reader.array(_F16 if value_bytes == 2 else _F32, nnz).astype(np.float32) * np.float32(scale)
    reader.done()
    return Examples(
        contexts=contexts,
        reasons=reasons,
        repeats=repeats,
        offsets=offsets,
        positions=positions,
        values=values,
    )
