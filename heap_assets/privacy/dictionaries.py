"""Columns of text of Parquet files by their dictionaries: a value that a thousand rows have is searched once."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def values_of(chunk: pa.Array) -> pa.Array:
    """Return the values of a column, of one that is read as a dictionary each value once."""
    return chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk


def decoded(table: pa.Table) -> pa.Table:
    """Return a table with texts in place of places in a dictionary."""
    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(number, column.name, pc.cast(table.column(number), column.type.value_type))
    return table


def with_dictionaries(content: bytes | BinaryIO) -> pq.ParquetFile:
    """Open a Parquet file, by its bytes or opened, so that columns of text that have a dictionary are read as one."""
    source = pa.BufferReader(content) if isinstance(content, bytes) else content
    metadata = pq.read_metadata(source)
    encoded = []
    for number in range(metadata.num_columns if metadata.num_row_groups else 0):
        column = metadata.row_group(0).column(number)
        if column.physical_type == "BYTE_ARRAY" and "RLE_DICTIONARY" in column.encodings:
            encoded.append(column.path_in_schema)
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=encoded)
