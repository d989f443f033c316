"""Flat Avro rows, decoded column by column by polars-avro.

It reads files that are written here: one uncompressed block with the rows of many, after a schema of plain types. The
rows are followed by end marks, rows with random values. They are decoded unchanged if, and only if, the blocks hold
exactly the rows that they declare; the reader, which hangs on a block with bytes left over, is never asked for more.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

# The public functions go through a scan, which decides by itself how often it asks.
from polars_avro._avro_rs import AvroSource

from heap_assets.sources.heap_connect.avro_container import MAGIC, Bytes, encoded_long
from heap_assets.sources.heap_connect.avro_schema import AvroSchema

_DAMAGED = "it does not hold the rows that the schema in the header and their number say: the file is damaged here"


class FlatDecoder:
    """Decodes rows of one schema, through a file at `scratch`, in frames of at most `batch_rows`."""

    def __init__(self, schema: AvroSchema, scratch: Path, batch_rows: int) -> None:
        self.schema = schema
        self._path = scratch
        self._batch_rows = batch_rows
        self._sync = secrets.token_bytes(16)
        self._header = _header(schema.physical) + self._sync
        marks = [_mark(kind.physical) for kind in schema.fields.values()]
        self._end_row = tuple(value for value, _ in marks)
        self._end_bytes = b"".join(encoded for _, encoded in marks)

    def frames(self, rows: int, blocks: list[Bytes]) -> Iterator[pl.DataFrame]:
        """Decode blocks that hold so many rows together; the list is emptied once they are on the disk.

        Yields
        ------
        pl.DataFrame
            Columns f0, f1, and so on, as they are decoded.

        Raises ValueError if the blocks hold anything else; frames yielded before are void. No value is quoted.
        """
        count = -(-(rows + 1) // self._batch_rows)
        height = -(-(rows + 1) // count)
        ends = count * height - rows
        self._write(rows + ends, [*blocks, self._end_bytes * ends])
        blocks.clear()
        batches = AvroSource([str(self._path)], False, False).batch_iter(height, None)
        for number in range(count):
            frame = _next(batches)
            if frame.height != height:
                raise ValueError(_DAMAGED)
            if number == count - 1:
                if set(frame.tail(ends).iter_rows()) != {self._end_row}:
                    raise ValueError(_DAMAGED)
                frame = frame.head(height - ends)
            if frame.height:
                yield frame

    def _write(self, rows: int, blocks: Sequence[Bytes]) -> None:
        with self._path.open("wb") as file:
            file.write(self._header)
            file.write(encoded_long(rows) + encoded_long(sum(len(block) for block in blocks)))
            file.writelines(blocks)
            file.write(self._sync)


def _next(batches: Iterator[Any]) -> pl.DataFrame:
    try:
        return pl.DataFrame(next(batches))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in the library is no Exception
        raise ValueError(_DAMAGED) from error


def _header(schema: Any) -> bytes:
    entries = (b"avro.schema", json.dumps(schema).encode()), (b"avro.codec", b"null")
    spelled = b"".join(encoded_long(len(text)) + text for entry in entries for text in entry)
    return MAGIC + encoded_long(len(entries)) + spelled + encoded_long(0)


def _mark(kind: Any) -> tuple[Any, bytes]:
    """Return a random value, decoded and encoded."""
    if isinstance(kind, list):
        branch = 1 - kind.index("null")
        value, encoded = _mark(kind[branch])
        return value, encoded_long(branch) + encoded
    if kind == "null":
        return None, b""
    if kind == "boolean":
        return True, b"\1"
    if kind in ("int", "long"):
        number = secrets.randbits(30 if kind == "int" else 62)
        return number, encoded_long(number)
    if kind in ("float", "double"):
        number = secrets.randbits(20 if kind == "float" else 50)
        return float(number), struct.pack("<f" if kind == "float" else "<d", number)
    if kind in ("string", "bytes"):
        text = secrets.token_hex(16)
        return text if kind == "string" else text.encode(), encoded_long(len(text)) + text.encode()
    data = secrets.token_bytes(kind["size"])
    return data, data
