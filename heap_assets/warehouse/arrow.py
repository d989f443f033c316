"""Arrow batches of any driver into one Parquet file of plain types, with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_BYTES = 8 * 1024 * 1024
"""Rows are gathered into row groups of about this size in memory."""


class SourceFailedError(Exception):
    """The driver failed in the middle of a read, with its own text."""


def plain_type(kind: pa.DataType, typmod: int = -1) -> pa.DataType:
    """Return the type a value is kept in: the same, without what only one driver knows.

    Dictionaries become their values, extension types their storage, fixed-size lists lists; timestamps are
    microseconds (nanoseconds stay) and in UTC if they have a zone at all. PostgreSQL's numeric becomes a decimal
    of its precision, or of (38, 9) if none was declared.

    Parameters
    ----------
    typmod
        PostgreSQL's type modifier of a numeric: precision and scale.
    """
    if isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric":
        return _decimal(typmod)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_decimal256(kind):
        return pa.string()  # BigQuery's BIGNUMERIC: more digits than any decimal of Polars holds
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns" if kind.unit == "ns" else "us", "UTC" if kind.tz else None)
    if pa.types.is_time32(kind):
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([plain_field(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_field(kind.value_field))
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_field(kind.value_field))
    return kind


def _decimal(typmod: int) -> pa.DataType:
    precision, scale = ((typmod - 4) >> 16, (typmod - 4) & 0x7FF) if typmod >= 4 else (38, 9)
    return pa.decimal128(precision, scale) if precision <= 38 and scale <= precision else pa.string()


def plain_field(arrow_field: pa.Field) -> pa.Field:
    typmod = int((arrow_field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    return pa.field(arrow_field.name, plain_type(arrow_field.type, typmod), nullable=True)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema in plain types, without driver metadata."""
    return pa.schema([plain_field(arrow_field) for arrow_field in schema])


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Write batches into a Parquet file, which appears only when all of them are written.

    Returns
    -------
    int
        Rows written.
    """
    target = plain_schema(schema)
    staging = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    rows = 0
    try:
        with pq.ParquetWriter(staging, target, compression="zstd", compression_level=1) as writer:
            for table in _groups(target, batches):
                rows += table.num_rows
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return rows


def first_rows(batches: Iterable[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """Stop after so many rows."""
    for batch in batches:
        yield batch.slice(0, limit)
        limit -= batch.num_rows
        if limit <= 0:
            return


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in _received(batches):
        if batch.num_rows == 0:
            continue
        plain = plain_batch(batch, schema)
        held.append(plain)
        size += plain.get_total_buffer_size()
        if size >= GROUP_BYTES:
            yield pa.Table.from_batches(held, schema)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema)


def _received(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Iterate, and tell the source's failures (which Arrow passes on as OSError) from those of writing the file."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise SourceFailedError(str(error)) from error
        yield batch


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring a batch into a plain schema; ValueError names the column whose values do not fit."""
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    columns = []
    for index, arrow_field in enumerate(schema):
        try:
            columns.append(_plain_array(batch.column(index), arrow_field.type))
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {arrow_field.name!r} holds values that {arrow_field.type} cannot keep") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.type.equals(kind):
        return array
    if pa.types.is_struct(array.type) and _extended(array.type):
        # flatten() gives the children nulls where the struct is null; what lies below them need not be castable
        children = [_plain_array(child, kind.field(index).type) for index, child in enumerate(array.flatten())]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(array.type) and _extended(array.type):
        values = _plain_array(array.values, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=kind, mask=array.is_null())
    return array.cast(kind)


def _extended(kind: pa.DataType) -> bool:
    """Whether an extension type is anywhere below: Arrow's own casts do not reach into those."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_extended(kind.field(index).type) for index in range(kind.num_fields))
