"""Token ids and token bytes without a tokenizer library.

A context is stored as packed ids; a tokenizer is stored as the bytes of each of its tokens. From these two
any service can show text, and no text is stored twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_WIDTHS = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


def token_width(vocabulary_size: int) -> int:
    """Bytes per packed id: 2 while every id fits in 16 bits, else 4."""
    return 2 if vocabulary_size <= 1 << 16 else 4


def pack_ids(ids: NDArray[np.integer] | Sequence[int], width: int) -> bytes:
    """Pack token ids little-endian, `width` bytes each."""
    return np.asarray(ids).astype(_WIDTHS[width]).tobytes()


def unpack_ids(packed: bytes, width: int) -> NDArray[np.uint32]:
    """Undo `pack_ids`; shape [n]."""
    return np.frombuffer(packed, dtype=_WIDTHS[width]).astype(np.uint32)


class Vocabulary:
    """The bytes of every token of a tokenizer, by id."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = list(tokens)
        self._ids: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def token(self, token_id: int) -> bytes:
        """Raw bytes of one token. Raises IndexError for an id outside the vocabulary."""
        if not 0 <= token_id < len(self._tokens):
            raise IndexError(f"token id {token_id} outside 0..{len(self._tokens) - 1}")
        return self._tokens[token_id]

    def show(self, token_id: int) -> str:
        """One token as text; bytes that are no UTF-8 on their own appear as `<0xE2>`."""
        return show_bytes(self.token(token_id))

    def text(self, ids: Iterable[int]) -> str:
        """Several tokens as one text: characters split over tokens come out whole."""
        return show_bytes(b"".join(self.token(int(token_id)) for token_id in ids))

    def find(self, shown: str) -> int | None:
        """The id whose `show` is exactly this text, lowest id first; None when there is none."""
        if self._ids is None:
            self._ids = {}
            for token_id in range(len(self._tokens) - 1, -1, -1):
                self._ids[self.show(token_id)] = token_id
        return self._ids.get(shown)

    def pack(self) -> bytes:
        """All tokens as one deflated blob: count, lengths, bytes."""
        lengths = np.array([len(token) for token in self._tokens], dtype="<u4")
        head = np.array([len(self._tokens)], dtype="<u4").tobytes()
        return zlib.compress(head + lengths.tobytes() + b"".join(self._tokens), 6)

    @classmethod
    def unpack(cls, blob: bytes) -> Vocabulary:
        """Undo `pack`."""
        payload = zlib.decompress(blob)
        count = int(np.frombuffer(payload, "<u4", 1)[0])
        ends = np.cumsum(np.frombuffer(payload, "<u4", count, offset=4), dtype=np.int64) + 4 + 4 * count
        starts = np.concatenate(([4 + 4 * count], ends[:-1])) if count else ends
        return cls([payload[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)])


def show_bytes(raw: bytes) -> str:
    """UTF-8 where it is UTF-8, `<0xNN>` for every byte that is not."""
    text = raw.decode("utf-8", errors="surrogateescape")
    if text.isascii():
        return text
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
