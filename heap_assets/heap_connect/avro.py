"""Avro files as batches of Polars rows: a compiled reader where it can, fastavro for the schemas it refuses.

Both give equal rows and types (`test_avro.py` proves it): ints are Int64, floats Float64, enums and uuids String, fixed
and bytes Binary, records Struct, arrays List, maps List of {key, value}. A union of several types is String: strings
as they are, everything else as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import jetliner
import polars as pl

from heap_assets.errors import SourceError
from heap_assets.heap_connect.avro_container import first_bad_block, read_header
from heap_assets.heap_connect.avro_schema import AvroSchema, canonical

BATCH_ROWS = 32_768

_JETLINER_ERRORS = (jetliner.JetlinerError, ValueError, OSError)


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
    label = name or str(path)
    try:
        header = read_header(path)
    except ValueError as error:
        raise AvroError(label, None, str(error)) from error
    schema = AvroSchema(header.schema)
    batches = _fast(path, batch_rows) if schema.is_plain else _slow(path, schema, batch_rows)
    given = 0
    try:
        for batch in batches:
            yield batch.cast({n: t for n, t in schema.dtypes.items() if batch.schema[n] != t})
            given += batch.height
    except (*_JETLINER_ERRORS, EOFError, pl.exceptions.PolarsError, IndexError, KeyError, TypeError) as error:
        raise _explained(path, label, error) from error
    if not given:
        yield pl.DataFrame(schema=schema.dtypes)


def _fast(path: Path, batch_rows: int) -> Iterator[pl.DataFrame]:
    with jetliner.AvroReader(str(path), batch_size=batch_rows, buffer_blocks=2, buffer_bytes=8 << 20) as reader:
        yield from reader


def _slow(path: Path, schema: AvroSchema, batch_rows: int) -> Iterator[pl.DataFrame]:
    with path.open("rb") as file:
        records: Iterator[Any] = iter(fastavro.reader(file))
        while rows := list(islice(records, batch_rows)):
            yield schema.frame(rows)


def _explained(path: Path, label: str, error: BaseException) -> AvroError:
    """Name the block at fault, found by walking the file again: readers do not tell it."""
    bad = first_bad_block(path)
    if bad is not None:
        return AvroError(label, bad.block, bad.reason)
    # Messages of readers may quote values; only their kind is told.
    return AvroError(label, 0, f"rows do not fit the schema in the header ({type(error).__name__})")


__all__ = ["BATCH_ROWS", "AvroError", "canonical", "read_batches"]
