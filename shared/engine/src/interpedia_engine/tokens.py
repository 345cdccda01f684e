"""The bytes of every token id, and the identity of a tokenizer. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from interpedia_engine.errors import ModelLoadFailed, OutOfRange

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "\u2581"


@dataclass(frozen=True)
class Vocabulary:
    """The bytes that each token id stands for.

    Bytes rather than strings, because one character may be split over tokens: only their concatenation need
    be valid UTF-8. Ids that the tokenizer never emits (padding rows of the embedding) have no bytes.
    """

    entries: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, token: int) -> bytes:
        """Return the bytes of one token id.

        Raises:
            OutOfRange: the id is negative or past the end.
        """
        if not 0 <= token < len(self.entries):
            raise OutOfRange("token", f"id {token} is outside 0..{len(self.entries) - 1}")
        return self.entries[token]

    def join(self, tokens: Sequence[int]) -> bytes:
        """Return the concatenated bytes of `tokens`."""
        return b"".join(self[token] for token in tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, with U+FFFD for bytes that are no UTF-8 even when joined."""
        return self.join(tokens).decode("utf-8", errors="replace")


def build_vocabulary(tokenizer_json: str, *, d_vocab: int = 0) -> Vocabulary:
    """Read the bytes of every id from a fast tokenizer's JSON (the `tokenizers` library's format).

    Two families are known by their decoder: byte-level BPE (GPT-2's table of printable characters for bytes)
    and sentencepiece-like (`▁` for a space, `<0xE2>` for a byte that no piece covers). Added tokens are their
    own text. A sentencepiece decoder may drop the space before the first word of a text; the bytes here keep
    it.

    Args:
        tokenizer_json: `tokenizer.backend_tokenizer.to_str()`.
        d_vocab: Rows of the embedding, where they exceed the tokenizer's ids.

    Raises:
        ModelLoadFailed: the tokenizer is of neither family.
    """
    spec: dict[str, Any] = json.loads(tokenizer_json)
    is_byte_level = "ByteLevel" in _decoder_types(spec.get("decoder"))
    pieces = _pieces(spec)
    if not is_byte_level and not _is_sentencepiece(spec):
        raise ModelLoadFailed(
            "tokenizer", "it is neither byte-level nor sentencepiece-like, so ids have no bytes"
        )
    added = {int(token["id"]): str(token["content"]) for token in spec.get("added_tokens") or []}
    size = max([d_vocab, *(index + 1 for index in pieces), *(index + 1 for index in added)])
    entries = [b""] * size
    for index, piece in pieces.items():
        entries[index] = _byte_level_bytes(piece) if is_byte_level else _sentencepiece_bytes(piece)
    for index, content in added.items():
        entries[index] = content.encode("utf-8")
    return Vocabulary(tuple(entries))


def tokenizer_hash(tokenizer_json: str) -> str:
    """Return a sha256 of a tokenizer's JSON without its truncation and padding settings."""
    spec: dict[str, Any] = json.loads(tokenizer_json)
    spec.pop("truncation", None)
    spec.pop("padding", None)
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _pieces(spec: dict[str, Any]) -> dict[int, str]:
    vocab: Any = spec["model"].get("vocab")
    if isinstance(vocab, list):  # a unigram model: rows of [piece, log probability]
        return {index: str(row[0]) for index, row in enumerate(vocab)}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return {int(index): str(piece) for piece, index in vocab.items()}


def _decoder_types(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    nested: list[dict[str, Any]] = decoder.get("decoders") or []
    return {str(decoder["type"])}.union(*(_decoder_types(part) for part in nested))


def _is_sentencepiece(spec: dict[str, Any]) -> bool:
    types = _decoder_types(spec.get("decoder"))
    return "ByteFallback" in types or "Metaspace" in types or bool(spec["model"].get("byte_fallback"))


def _sentencepiece_bytes(piece: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(piece)
    if match:
        return bytes([int(match[1], 16)])
    return piece.replace(_SPACE_MARK, " ").encode("utf-8")


def _byte_level_bytes(piece: str) -> bytes:
    table = _byte_of_character()
    if all(character in table for character in piece):
        return bytes(table[character] for character in piece)
    return piece.encode("utf-8")


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on.

    Source: Radford et al. 2019, byte-level BPE of GPT-2.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + offset): byte for offset, byte in enumerate(rest)})
    return table
