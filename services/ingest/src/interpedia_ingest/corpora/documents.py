"""Documents of a `.jsonl` or `.jsonl.xz` file, one at a time, with every size capped.

A small xz file may unpack to terabytes, so bytes are counted as they come out, and the decoder's
memory is capped.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

_CHUNK = 1 << 20
_XZ_MEMORY = 256 * 1024 * 1024
_MAX_NAME = 500
_FIELDS = ("id", "source", "licence", "text")


class BadDocument(Exception):
    """A line, or the file as a whole, is not what a corpus is made of."""

    def __init__(self, line: int, fact: str) -> None:
        super().__init__(f"Line {line}: {fact}")
        self.line = line
        self.fact = fact


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it comes from."""

    name: str
    source: str
    licence: str
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, after decompression."""

    file: int
    line: int


class DocumentReader:
    """Reads documents and knows how much of the file has been read."""

    def __init__(self, path: Path, *, is_xz: bool, limits: Limits) -> None:
        self._path = path
        self._is_xz = is_xz
        self._limits = limits
        self.bytes_read = 0
        """Bytes of the file as it lies on disk."""

    def __iter__(self) -> Iterator[Document]:
        """Yield all documents.

        Raises:
            BadDocument: names the line and the fact.
        """
        for number, line in enumerate(self._lines(), start=1):
            if line.strip():
                yield parse_document(line, number)

    def _lines(self) -> Iterator[bytes]:
        number, total = 1, 0
        rest = bytearray()
        with self._path.open("rb") as file:
            for chunk in self._xz(file) if self._is_xz else self._plain(file):
                total += len(chunk)
                if total > self._limits.file:
                    raise BadDocument(number, f"the corpus has more than {self._limits.file} bytes unpacked")
                *lines, tail = chunk.split(b"\n")
                for line in lines:
                    rest += line
                    yield bytes(rest)
                    rest.clear()
                    number += 1
                rest += tail
                if len(rest) > self._limits.line:
                    raise BadDocument(number, f"is longer than {self._limits.line} bytes")
        if rest:
            yield bytes(rest)

    def _plain(self, file: BinaryIO) -> Iterator[bytes]:
        while chunk := file.read(_CHUNK):
            self.bytes_read += len(chunk)
            yield chunk

    def _xz(self, file: BinaryIO) -> Iterator[bytes]:
        decoder = _decoder()
        data = b""
        try:
            while True:
                if decoder.eof:
                    # Several streams in one file are one text, as for `xz -dc`; between them may be zeros.
                    data = decoder.unused_data.lstrip(b"\0") or self._next(file).lstrip(b"\0")
                    if not data:
                        return
                    decoder = _decoder()
                elif decoder.needs_input:
                    data = self._next(file)
                    if not data:
                        raise BadDocument(1, "the xz file ends too early")
                yield decoder.decompress(data, _CHUNK)
                data = b""
        except lzma.LZMAError as error:
            raise BadDocument(
                1, "the file is not xz, is damaged, or needs too much memory to unpack"
            ) from error

    def _next(self, file: BinaryIO) -> bytes:
        chunk = file.read(_CHUNK)
        self.bytes_read += len(chunk)
        return chunk


def _decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def parse_document(line: bytes, number: int) -> Document:
    """Read one line.

    Raises:
        BadDocument: it is no object with the four fields.
    """
    try:
        raw: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadDocument(number, "is not JSON in UTF-8") from error
    if not isinstance(raw, dict):
        raise BadDocument(number, f"must be an object, not {type(raw).__name__}")
    fields = cast("dict[str, Any]", raw)
    for name in _FIELDS:
        _check_field(fields, name, number)
    return Document(fields["id"], fields["source"], fields["licence"], fields["text"])


def _check_field(fields: dict[str, Any], name: str, number: int) -> None:
    if name not in fields:
        raise BadDocument(number, f"'{name}' is missing")
    value = fields[name]
    if not isinstance(value, str):
        raise BadDocument(number, f"'{name}' must be a string, not {type(value).__name__}")
    if name == "text":
        return
    if not value or len(value) > _MAX_NAME:
        raise BadDocument(number, f"'{name}' must have 1 to {_MAX_NAME} characters, it has {len(value)}")
    if "\0" in value:
        raise BadDocument(number, f"'{name}' holds a NUL character")
