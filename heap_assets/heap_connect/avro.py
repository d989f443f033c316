"""Avro files as batches of Polars rows: a compiled reader for flat records, fastavro for all others.

Both give equal rows and types (`test_avro.py` proves it): ints are Int64, floats Float64, enums and uuids String, fixed
and bytes Binary, records Struct, arrays List, maps List of {key, value}. A union of several types is String: strings
as they are, everything else as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.errors import SourceError
from heap_assets.heap_connect.avro_compiled import AS_TEXT, Reading, blocks_of, read_flat
from heap_assets.heap_connect.avro_container import AvroHeader, BlockError, read_header
from heap_assets.heap_connect.avro_schema import AvroSchema
from heap_assets.heap_connect.text_table import Batch

BATCH_ROWS = 32_768


class AvroError(SourceError):
    """A data file that cannot be decoded.

    Attributes
    ----------
    block
        Number of the first bad block, counted from 0; None if the header itself is bad.
    """

    def __init__(self, file: str, block: int | None, reason: str) -> None:
        super().__init__(f"{file}, {'header' if block is None else f'block {block}'}: {reason}")
        self.file = file
        self.block = block
        self.reason = reason


def read_batches(path: Path, *, name: str | None = None, batch_rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """Decode a file in batches of bounded memory; a file without rows gives one batch without rows.

    Parameters
    ----------
    name
        What to call the file in errors (its address in the source).

    Raises
    ------
    AvroError
        If it is not Avro, its codec is unknown, or it is truncated or corrupt. Batches given before that are void.
    """
    for batch in read_numbered(path, AS_TEXT, name=name, batch_rows=batch_rows):
        yield batch.rows


def read_numbered(
    path: Path, reading: Reading, *, name: str | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[Batch]:
    """Do what :func:`read_batches` does, with text as `reading` says where the compiled reader takes the file."""
    label = name or str(path)
    try:
        header = read_header(path)
        schema = AvroSchema(header.schema)
    except (ValueError, KeyError, TypeError) as error:
        raise AvroError(label, None, str(error)) from error
    given, flat = 0, schema.flat
    batches = (
        map(Batch, read_any(path, header, schema, batch_rows))
        if flat is None
        else read_flat(path, header, flat, batch_rows, reading)
    )
    try:
        for batch in batches:
            yield batch
            given += batch.rows.height
    except BlockError as error:
        raise AvroError(label, error.block, error.reason) from error
    if not given:
        yield Batch(pl.DataFrame(schema=schema.dtypes))


def read_any(path: Path, header: AvroHeader, schema: AvroSchema, batch_rows: int) -> Iterator[pl.DataFrame]:
    """Decode a file of any schema through fastavro, block by block, so that a bad one can be named."""
    import fastavro  # for the few files that need it

    parsed = fastavro.parse_schema(header.schema)
    rows: list[Any] = []
    for number, count, data in blocks_of(path, header):
        stream = BytesIO(data)
        try:
            rows += [fastavro.schemaless_reader(stream, parsed, None) for _ in range(count)]
        except Exception as error:  # fastavro lets whatever it trips over out
            # Messages of the reader may quote values; only their kind is told.
            reason = f"rows do not fit the schema in the header ({type(error).__name__})"
            raise BlockError(number, reason) from error
        if stream.read(1):
            raise BlockError(number, "it has bytes left over: the file is damaged here")
        if len(rows) >= batch_rows:
            yield schema.frame(rows)
            rows = []
    if rows:
        yield schema.frame(rows)
