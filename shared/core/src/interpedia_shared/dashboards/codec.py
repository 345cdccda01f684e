"""The one place that writes and reads the `stats` and `examples` blobs of table `feature`.

A blob is a format byte, the CRC-32 of a payload, and the payload: little-endian, in a fixed order. A payload
that Postgres would move out of its row is deflated, which takes a fifth off; on shorter ones it saves a few
bytes and takes as long as all the rest. A reader keeps every format that was ever written; a writer only
writes the newest.

What is counted is exact: every list of counts, ids or positions has the narrowest integers that hold it. What
is measured is rounded, see `encode_stats` and `encode_examples`.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_shared.dashboards.model import Coactive, Examples, FeatureStats, Histogram, Ranked

FORMAT = 1
_DEFLATED = 0x80
"""Set in the format byte of a blob whose payload is deflated."""
_WORTH_DEFLATING = 2_000
"""Bytes of a payload from which on deflating is tried: about where Postgres stores a value out of line."""
_LEVEL = 1
_CRC = struct.Struct("<I")
_STATS_HEAD = struct.Struct("<IIddff")
_EXAMPLES_HEAD = struct.Struct("<IIfB")
_COUNT = struct.Struct("<H")
_RANGE = struct.Struct("<ff")
_SCALE = struct.Struct("<f")
_STEPS = 32_767
_LARGEST_HALF, _SMALLEST_HALF = 2.0**15, 2.0**-14
"""Where the largest value of a feature's examples is put, and below what half precision loses bits."""
_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)
_U32, _U16, _U8, _I16, _F16, _F32 = (np.dtype(code) for code in ("<u4", "<u2", "u1", "<i2", "<f2", "<f4"))
_INTEGERS = {1: _U8, 2: _U16, 4: _U32}
_WIDTH = {width: bytes((width,)) for width in _INTEGERS}
_FLOATS = {2: _F16, 4: _F32}


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

    def integers(self, count: int) -> NDArray[np.uint32]:
        width = self._bytes(1)[0]
        if width not in _INTEGERS:
            raise CorruptBlob(f"integers of {width} bytes")
        return self.array(_INTEGERS[width], count).astype(np.uint32)

    def counted(self) -> NDArray[np.uint32]:
        (count,) = self.head(_COUNT)
        return self.integers(count)

    def steps(self, count: int) -> NDArray[np.float32]:
        (largest,) = self.head(_SCALE)
        return self.array(_I16, count).astype(np.float32) / np.float32(_STEPS) * np.float32(largest)

    def done(self) -> None:
        if self._at != len(self._payload):
            raise CorruptBlob(f"{len(self._payload) - self._at} bytes left over after the last field")

    def _bytes(self, size: int) -> bytes:
        part = self._payload[self._at : self._at + size]
        if len(part) != size:
            raise CorruptBlob(f"payload ends {size - len(part)} bytes early")
        self._at += size
        return part


def _largest(values: NDArray[Any]) -> float:
    # `max` of an array is a detour to the same loop, and half of what packing short lists takes.
    return float(np.maximum.reduce(values)) if len(values) else 0.0


def _integers(values: NDArray[Any]) -> bytes:
    """Width in bytes, then the numbers."""
    largest = _largest(values)
    width = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    return _WIDTH[width] + values.astype(_INTEGERS[width]).tobytes()


def _counted(values: NDArray[Any]) -> bytes:
    return _COUNT.pack(len(values)) + _integers(values)


def _steps(values: NDArray[np.float32]) -> bytes:
    """The largest magnitude, then each value as a number of 32,767ths of it."""
    largest = _largest(np.abs(values))
    if not math.isfinite(largest):
        raise ValueError(f"a ranked list holds a value that is NaN or infinite: {values.tolist()}")
    # Not times the inverse, which for the smallest of numbers is infinite.
    parts = np.rint(values / np.float32(largest) * np.float32(_STEPS)) if largest else values
    return _SCALE.pack(largest) + parts.astype(_I16).tobytes()


def _seal(payload: bytes) -> bytes:
    crc = _CRC.pack(zlib.crc32(payload))
    if len(payload) >= _WORTH_DEFLATING:
        deflated = zlib.compress(payload, _LEVEL, wbits=-zlib.MAX_WBITS)
        if len(deflated) < len(payload):
            return bytes((FORMAT | _DEFLATED,)) + crc + deflated
    return bytes((FORMAT,)) + crc + payload


def _open(blob: bytes) -> _Reader:
    if not blob or blob[0] & ~_DEFLATED != FORMAT:
        raise CorruptBlob(f"format byte {blob[0] if blob else None}, this reader knows {FORMAT}")
    crc, payload = blob[1:5], blob[5:]
    if blob[0] & _DEFLATED:
        try:
            payload = zlib.decompress(payload, wbits=-zlib.MAX_WBITS)
        except zlib.error as error:
            raise CorruptBlob(f"payload does not inflate: {error}") from error
    if _CRC.pack(zlib.crc32(payload)) != crc:
        raise CorruptBlob("payload has another checksum than was stored with it")
    return _Reader(payload)


def _histogram_bytes(histogram: Histogram) -> bytes:
    return _RANGE.pack(histogram.low, histogram.high) + _counted(histogram.counts)


def _read_histogram(reader: _Reader) -> Histogram:
    low, high = reader.head(_RANGE)
    return Histogram(low=low, high=high, counts=reader.counted())


def _ranked_bytes(ranked: Ranked) -> bytes:
    return _counted(ranked.ids) + _steps(ranked.values)


def _read_ranked(reader: _Reader) -> Ranked:
    ids = reader.counted()
    return Ranked(ids=ids, values=reader.steps(len(ids)))


def encode_stats(stats: FeatureStats) -> bytes:
    """Pack one feature's numbers.

    Counts, ids, sums, extremes and the ends of histograms are kept as they are. The values of a ranked list
    (logit effects, cosines, Pearson's r) are off by at most 1/65,500 of the largest magnitude of their list,
    which itself is exact; their order stays.

    Raises:
        ValueError: a value of a ranked list is NaN or infinite.
    """
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
        b"".join(
            (
                head,
                _counted(stats.interval_counts),
                _histogram_bytes(stats.activation_histogram),
                _histogram_bytes(stats.logit_histogram),
                _ranked_bytes(stats.top_logits),
                _ranked_bytes(stats.bottom_logits),
                _ranked_bytes(stats.cosine_neighbours),
                _counted(coactive.ids),
                _steps(coactive.pearson),
                _integers(coactive.counts),
            )
        )
    )


def decode_stats(blob: bytes) -> FeatureStats:
    """Unpack one feature's numbers.

    Raises:
        CorruptBlob: unknown format, or the payload is damaged, cut or too long.
    """
    reader = _open(blob)
    head = reader.head(_STATS_HEAD)
    stats = FeatureStats(
        n_active_tokens=head[0],
        n_active_contexts=head[1],
        activation_sum=head[2],
        activation_sum_squares=head[3],
        min_activation=head[4],
        max_activation=head[5],
        interval_counts=reader.counted(),
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
    ids = reader.counted()
    return Coactive(ids=ids, pearson=reader.steps(len(ids)), counts=reader.integers(len(ids)))


def encode_examples(examples: Examples) -> bytes:
    """Pack one feature's examples.

    Values are kept in half precision, as multiples of 2**-15 of the largest magnitude; if one of them is too
    small for that (below 2**-29 of the largest), in single precision. Either way the relative error is below
    2**-11 and what is not zero stays so. Everything else is kept as it is.
    """
    scale, value_type = _value_encoding(examples.values)
    head = _EXAMPLES_HEAD.pack(len(examples), len(examples.positions), scale, value_type.itemsize)
    return _seal(
        b"".join(
            (
                head,
                _integers(examples.contexts),
                examples.reasons.astype(_U8).tobytes(),
                np.packbits(examples.repeats).tobytes(),
                _integers(np.diff(examples.offsets)),
                _integers(examples.positions),
                (examples.values / np.float32(scale)).astype(value_type).tobytes(),
            )
        )
    )


def _value_encoding(values: NDArray[np.float32]) -> tuple[float, np.dtype[Any]]:
    magnitudes = np.abs(values)
    largest = _largest(magnitudes)
    scale = largest / _LARGEST_HALF
    if scale < _SMALLEST_NORMAL:
        return 1.0, _F32
    is_lossless = ((magnitudes >= _SMALLEST_HALF * scale) | (magnitudes == 0)).all()
    return (scale, _F16) if is_lossless else (1.0, _F32)


def decode_examples(blob: bytes) -> Examples:
    """Unpack one feature's examples.

    Raises:
        CorruptBlob: unknown format, a damaged payload, or counts that contradict each other.
    """
    reader = _open(blob)
    count, nnz, scale, value_bytes = reader.head(_EXAMPLES_HEAD)
    if value_bytes not in _FLOATS:
        raise CorruptBlob(f"values of {value_bytes} bytes")
    contexts = reader.integers(count)
    reasons = reader.array(_U8, count)
    repeats = np.unpackbits(reader.array(_U8, -(-count // 8)), count=count).astype(np.bool_)
    offsets = np.zeros(count + 1, np.uint32)
    np.cumsum(reader.integers(count), out=offsets[1:])
    if int(offsets[-1]) != nnz:
        raise CorruptBlob(f"examples hold {int(offsets[-1])} activations, header says {nnz}")
    positions = reader.integers(nnz).astype(np.uint16)
    values = reader.array(_FLOATS[value_bytes], nnz).astype(np.float32) * np.float32(scale)
    reader.done()
    return Examples(
        contexts=contexts,
        reasons=reasons,
        repeats=repeats,
        offsets=offsets,
        positions=positions,
        values=values,
    )
