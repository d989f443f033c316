"""Arrow batches of any driver into one Parquet file of plain types, with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_BYTES = 8 * 1024 * 1024
"""Rows are gathered into row groups of about this size in memory."""


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type a value is kept in: the same, without what only one driver knows.

    Dictionaries become their values, extension types their storage, fixed-size lists lists; timestamps are
    microseconds (nanoseconds stay) and in UTC if they have a zone at all.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
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


def plain_field(arrow_field: pa.Field) -> pa.Field:
    return pa.field(arrow_field.name, plain_type(arrow_field.type), nullable=True)


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


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
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


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring a batch into a plain schema."""
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    columns = [_plain_array(batch.column(index), schema.field(index).type) for index in range(batch.num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array if array.type.equals(kind) else array.cast(kind)
