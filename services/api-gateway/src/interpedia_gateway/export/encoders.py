"""Rows to bytes, a chunk at a time."""

from __future__ import annotations

from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from interpedia_gateway.export.rows import SCHEMA


class Encoder(Protocol):
    """Turns chunks of rows into the bytes of a file, in order."""

    def chunk(self, rows: list[dict[str, Any]]) -> bytes:
        """The bytes that these rows add."""
        ...

    def end(self) -> bytes:
        """The bytes after the last row."""
        ...


class NDJSON:
    """One JSON object per line."""

    def chunk(self, rows: list[dict[str, Any]]) -> bytes:
        """The rows' lines."""
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)

    def end(self) -> bytes:
        """Nothing comes after the last line."""
        return b""


class _Outbox:
    """A file to write only: what was written is taken away again at once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class Parquet:
    """One row group per chunk; the footer with the schema and the provenance comes last."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self._outbox = _Outbox()
        self._schema = SCHEMA.with_metadata(metadata)
        self._writer: Any = pq.ParquetWriter(
            pa.PythonFile(self._outbox, mode="w"), self._schema, compression="zstd"
        )

    def chunk(self, rows: list[dict[str, Any]]) -> bytes:
        """The rows' row group."""
        self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema), row_group_size=len(rows))
        return self._outbox.take()

    def end(self) -> bytes:
        """The footer."""
        self._writer.close()
        return self._outbox.take()
