"""Avro files as batches of Polars rows: polars-avro for flat records, fastavro for all others.

Both give equal rows and types (`test_avro.py` proves it): ints are Int64, floats Float64, enums and uuids String, fixed
and bytes Binary, records Struct, arrays List, maps List of {key, value}. A union of several types is String: strings
as they are, everything else as JSON. Logical types: :mod:`avro_logical`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.avro_container import (
    AvroHeader,
    BlockError,
    Bytes,
    Limits,
    StoredBlock,
    TooLargeError,
    decompressed,
    read_header,
    stored_blocks,
)
from heap_assets.sources.heap_connect.avro_flat import FlatDecoder
from heap_assets.sources.heap_connect.avro_schema import AvroSchema, Lost, parse_schema

BATCH_ROWS = 32_768
_BATCH_BYTES = 8 << 20
_OBJECT_BYTES = 2 << 20  # many times that as Python objects
_ROW_BYTES = 16 << 20
_EMPTY_ROWS = 1 << 20  # in one block, of rows that take no bytes


class AvroError(SourceError):
    """A data file that cannot be decoded.

    `block`: number of the first bad block, counted from 0; None if the header itself is bad.
    """

    def __init__(self, file: str, block: int | None, reason: str) -> None:
        super().__init__(f"{file}, {'header' if block is None else f'block {block}'}: {reason}")
        self.file = file
        self.block = block
        self.reason = reason


@dataclass(frozen=True)
class AvroBatch:
    """Rows of a file, and by column how many values are null because their type cannot hold them."""

    rows: pl.DataFrame
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """A decompressed block: its number from 0, its rows as declared."""

    number: int
    rows: int
    data: Bytes


def read_batches(
    path: Path, *, name: str | None = None, batch_rows: int = BATCH_ROWS, limits: Limits | None = None
) -> Iterator[AvroBatch]:
    """Decode a file in batches of bounded memory; a file without rows gives one batch without rows.

    Parameters
    ----------
    name
        The file in errors (its address in the source).
    limits
        A larger file is refused.

    Raises AvroError if it is not Avro, its codec is unknown, it is truncated or corrupt, its schema cannot be read, or
    it exceeds the limits. Batches yielded before that are void.
    """
    label = name or str(path)
    try:
        header = read_header(path)
        schema = parse_schema(header.schema)
    except ValueError as error:
        raise AvroError(label, None, str(error)) from error
    decode = flat_batches if schema.flat else other_batches
    rows = 0
    try:
        for batch in decode(schema, blocks_of(path, header, schema, limits or Limits()), batch_rows):
            yield batch
            rows += batch.rows.height
    except BlockError as error:
        raise AvroError(label, error.block, error.reason) from error
    if not rows:
        yield AvroBatch(pl.DataFrame(schema=schema.dtypes))


def blocks_of(path: Path, header: AvroHeader, schema: AvroSchema, limits: Limits) -> Iterator[Block]:
    """Decompress a file's blocks one after the other.

    Raises BlockError, naming the first that is damaged, beyond the limits, or declares more rows than it can hold.
    """
    # No loop variable holds a block, which may take all free memory.
    return map(_Opener(header, schema, limits), stored_blocks(path, header, limits))


class _Opener:
    def __init__(self, header: AvroHeader, schema: AvroSchema, limits: Limits) -> None:
        self._codec = header.codec
        self._least = schema.least
        self._limits = limits
        self._total = 0

    def __call__(self, stored: StoredBlock) -> Block:
        data = self._decompressed(stored)
        self._total += len(data)
        if self._total > self._limits.file_bytes:
            most = f"{self._limits.file_bytes >> 20:,} MB (heap.limits.file_mb)"
            raise BlockError(stored.number, f"with it the file becomes larger than {most}")
        if not 0 <= stored.rows <= (len(data) // self._least if self._least else _EMPTY_ROWS):
            raise BlockError(stored.number, "its number of rows makes no sense: the file is damaged here")
        return Block(stored.number, stored.rows, data)

    def _decompressed(self, stored: StoredBlock) -> Bytes:
        try:
            return decompressed(self._codec, stored.data, self._limits.block_bytes)
        except TooLargeError as error:
            raise BlockError(stored.number, self._limits.block_reason) from error
        except ValueError as error:
            reason = f"it does not decompress as {self._codec}, or its checksum is wrong"
            raise BlockError(stored.number, reason) from error


def flat_batches(schema: AvroSchema, blocks: Iterable[Block], batch_rows: int) -> Iterator[AvroBatch]:
    """Decode rows column by column, many blocks at a time."""
    scratch = Path(tempfile.mkdtemp(prefix="heap-assets-"))
    try:
        decoder = FlatDecoder(schema, scratch / "blocks.avro", batch_rows)
        for group in _grouped(blocks, batch_rows):
            numbers = [block.number for block in group]
            rows, data = sum(block.rows for block in group), [block.data for block in group]
            if len(group) == 1:
                group.clear()
            try:
                yield from _decoded(decoder, rows, data)
            except ValueError as error:
                raise BlockError(numbers[0], str(error)) if not group else _bad_block(decoder, group) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _grouped(blocks: Iterable[Block], batch_rows: int) -> Iterator[list[Block]]:
    group: list[Block] = []
    rows = size = 0
    for block in blocks:
        if block.rows or len(block.data):
            group.append(block)
            rows, size = rows + block.rows, size + len(block.data)
        if size >= _BATCH_BYTES or rows >= batch_rows:
            del block
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _decoded(decoder: FlatDecoder, count: int, data: list[Bytes]) -> Iterator[AvroBatch]:
    """Decode `count` rows; `data` is emptied as soon as it is not needed."""
    for frame in decoder.frames(count, data):
        lost = {name: Lost() for name in decoder.schema.fields}
        kinds = decoder.schema.fields.items()
        columns = [
            kind.column(decoded.alias(name), lost[name])
            for (name, kind), decoded in zip(kinds, frame.get_columns(), strict=True)
        ]
        yield AvroBatch(pl.DataFrame(columns), _counted(lost))


def _bad_block(decoder: FlatDecoder, group: Sequence[Block]) -> BlockError:
    """Return the first block that cannot be decoded, by decoding each alone."""
    for block in group:
        try:
            for _ in _decoded(decoder, block.rows, [block.data]):
                pass
        except ValueError as error:
            return BlockError(block.number, str(error))
    return BlockError(group[0].number, "it, or one of those behind it, does not hold the rows it should")


def other_batches(schema: AvroSchema, blocks: Iterable[Block], batch_rows: int) -> Iterator[AvroBatch]:
    """Decode rows one by one with fastavro: nested types and unions."""
    import fastavro  # for the few files that need it

    parsed = fastavro.parse_schema(schema.physical)
    for block in blocks:
        rows: list[Any] = []
        size = at = 0
        for row, size in _rows_of(block, parsed):
            rows.append(row)
            if len(rows) >= batch_rows or size - at >= _OBJECT_BYTES:
                yield _from_rows(schema, rows, block)
                rows, at = [], size
        if size < len(block.data):
            raise BlockError(block.number, "it has bytes left over: the file is damaged here")
        if rows:
            yield _from_rows(schema, rows, block)


def _rows_of(block: Block, parsed: Any) -> Iterator[tuple[Any, int]]:
    """Yield a block's rows and where each ends; the reader gets no more bytes than the largest row may have."""
    import fastavro

    record_count = begin = 0
    while record_count < block.rows:
        window = BytesIO(block.data[begin : begin + _ROW_BYTES])
        at_end = begin + _ROW_BYTES >= len(block.data)
        complete_bytes = 0
        try:
            while record_count < block.rows:
                row = fastavro.schemaless_reader(window, parsed, None)
                record_count, complete_bytes = record_count + 1, window.tell()
                yield row, begin + complete_bytes
        except (GeneratorExit, MemoryError):
            raise
        except Exception as error:  # fastavro lets whatever it trips over out
            if at_end or not complete_bytes:
                # Messages of the reader may quote values; only their kind is reported.
                reason = f"rows do not fit the schema in the header ({type(error).__name__})"
                if not at_end:
                    reason = f"a row is larger than {_ROW_BYTES >> 20} MB, or the file is damaged here"
                raise BlockError(block.number, reason) from error
        begin += complete_bytes


def _from_rows(schema: AvroSchema, rows: Sequence[Mapping[str, Any]], block: Block) -> AvroBatch:
    lost = {name: Lost() for name in schema.fields}
    try:
        columns = [
            kind.column_of(name, [row[f"f{number}"] for row in rows], lost[name])
            for number, (name, kind) in enumerate(schema.fields.items())
        ]
    except (IndexError, OverflowError, ValueError, pl.exceptions.PolarsError) as error:
        reason = f"rows do not fit the schema in the header ({type(error).__name__})"
        raise BlockError(block.number, reason) from error
    return AvroBatch(pl.DataFrame(columns), _counted(lost))


def _counted(lost: Mapping[str, Lost]) -> dict[str, int]:
    return {name: count.values for name, count in lost.items() if count.values}
