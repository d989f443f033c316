"""Parquet files of flat columns, written by encoded chunks; the same to every reader as those of other writers.

Before the footer lies an index of the chunks, for those who read a part's texts by number (see coded_parts).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import polars as pl

from heap_assets.heap_connect import parquet_thrift as thrift
from heap_assets.heap_connect.parquet_columns import KINDS, PLAIN, RLE, RLE_DICTIONARY, Chunk, Encoder, TextColumn

MAGIC, INDEX_MAGIC = b"PAR1", b"HAI1"

_CODECS = {"lz4_raw": 7, "zstd": 6}
_INT32, _INT64, _DOUBLE, _BYTE_ARRAY, _BOOLEAN = 1, 2, 5, 6, 0
_PHYSICAL = {
    "text": _BYTE_ARRAY,
    "int64": _INT64,
    "float64": _DOUBLE,
    "bool": _BOOLEAN,
    "date": _INT32,
    "micros_utc": _INT64,
    "micros": _INT64,
}
_WORKERS = 2
_FEW_CELLS = 500_000  # threads cost more than they gain below


@dataclass(frozen=True)
class Packing:
    """How chunks are compressed."""

    codec: str
    level: int | None = None


FOR_LATER = Packing("lz4_raw")
TO_KEEP = Packing("zstd", 1)


def can_hold(dtypes: Iterable[pl.DataType]) -> bool:
    """Say whether columns of these types can be written here."""
    return all(dtype in KINDS for dtype in dtypes)


def edges_of(heights: Sequence[int], most: int) -> list[int]:
    """Return where row groups begin, and the number of all rows: none reaches across one of the heights' ends."""
    groups = [size for height in heights for size in _equal_parts(height, -(-height // most))]
    return list(accumulate(groups, initial=0))


def _equal_parts(height: int, count: int) -> list[int]:
    return [height * (i + 1) // count - height * i // count for i in range(count)]


def write_file(
    path: Path,
    schema: Mapping[str, pl.DataType],
    column: Callable[[str], TextColumn | pl.Series],
    edges: Sequence[int],
    packing: Packing,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write rows whose columns are asked for one after the other.

    Parameters
    ----------
    schema
        Of the rows; types as in :data:`KINDS`.
    column
        Gives a column; called on threads of its own.
    edges
        Where row groups begin, and the number of rows.
    metadata
        For the footer.
    """
    local = threading.local()

    def encoded(name: str) -> list[Chunk]:
        if not hasattr(local, "encoder"):
            local.encoder = Encoder(packing.codec, packing.level)
        values = column(name)
        return [local.encoder.encode(values, begin, end) for begin, end in pairwise(edges)]

    if edges[-1] * len(schema) < _FEW_CELLS:
        chunks = {name: encoded(name) for name in schema}
    else:
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="encode") as pool:
            chunks = dict(zip(schema, pool.map(encoded, schema), strict=True))
    kinds = {name: KINDS[dtype] for name, dtype in schema.items()}
    with path.open("wb") as file:
        at = file.write(MAGIC)
        offsets: list[dict[str, int]] = []
        for group in range(len(edges) - 1):
            offsets.append({})
            for name in schema:
                offsets[group][name] = at
                at += file.write(chunks[name][group].pages)
        heights = [end - begin for begin, end in pairwise(edges)]
        if packing == FOR_LATER:
            index = _index(kinds, chunks, offsets, heights)
            file.write(index + len(index).to_bytes(8, "little") + INDEX_MAGIC)
        footer = _footer(kinds, chunks, offsets, heights, _CODECS[packing.codec], metadata or {})
        file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


def _index(
    kinds: Mapping[str, str],
    chunks: Mapping[str, Sequence[Chunk]],
    offsets: Sequence[Mapping[str, int]],
    heights: Sequence[int],
) -> bytes:
    columns = {
        name: [kind, [[offsets[group][name], *chunk.places] for group, chunk in enumerate(chunks[name])]]
        for name, kind in kinds.items()
    }
    return json.dumps({"rows": heights, "columns": columns}, separators=(",", ":")).encode()


def _footer(
    kinds: Mapping[str, str],
    chunks: Mapping[str, Sequence[Chunk]],
    offsets: Sequence[Mapping[str, int]],
    heights: Sequence[int],
    codec: int,
    metadata: Mapping[str, str],
) -> bytes:
    root = thrift.struct([thrift.binary(4, b"root"), thrift.i32(5, len(kinds))])
    heads = {name: _column_head(name, kind, codec) for name, kind in kinds.items()}
    groups = []
    for number, height in enumerate(heights):
        columns = [_column(heads[n], chunks[n][number], offsets[number][n], height) for n in kinds]
        groups.append(_row_group(number, height, columns, [chunks[n][number] for n in kinds]))
    pairs = [thrift.struct([thrift.binary(1, k.encode()), thrift.binary(2, v.encode())]) for k, v in metadata.items()]
    by_type = thrift.struct([thrift.nested(1, [])])
    return thrift.struct(
        [
            thrift.i32(1, 1),
            thrift.listed(2, thrift.STRUCT, [root, *(_element(name, kind) for name, kind in kinds.items())]),
            thrift.i64(3, sum(heights)),
            thrift.listed(4, thrift.STRUCT, groups),
            *([thrift.listed(5, thrift.STRUCT, pairs)] if pairs else []),
            thrift.binary(6, b"heap_assets"),
            thrift.listed(7, thrift.STRUCT, [by_type] * len(kinds)),
        ]
    )


def _row_group(number: int, height: int, columns: Sequence[bytes], chunks: Sequence[Chunk]) -> bytes:
    return thrift.struct(
        [
            thrift.listed(1, thrift.STRUCT, columns),
            thrift.i64(2, sum(chunk.unpacked for chunk in chunks)),
            thrift.i64(3, height),
            thrift.i64(6, sum(len(chunk.pages) for chunk in chunks)),
            thrift.i16(7, number),
        ]
    )


def _column_head(name: str, kind: str, codec: int) -> list[thrift.Field]:
    encodings = [PLAIN, RLE, RLE_DICTIONARY] if kind == "text" else [PLAIN, RLE]
    return [
        thrift.i32(1, _PHYSICAL[kind]),
        thrift.listed(2, thrift.I32, [thrift.varint(encoding << 1) for encoding in encodings]),
        thrift.listed(3, thrift.BINARY, [thrift.sized(name.encode())]),
        thrift.i32(4, codec),
    ]


def _column(head: Sequence[thrift.Field], chunk: Chunk, offset: int, height: int) -> bytes:
    _, begin, size, *_ = chunk.places
    data_page = offset + begin + size  # the data page's header follows the dictionary
    meta = [
        *head,
        thrift.i64(5, height),
        thrift.i64(6, chunk.unpacked),
        thrift.i64(7, len(chunk.pages)),
        thrift.i64(9, data_page),
        *([thrift.i64(11, offset)] if begin else []),
        (12, thrift.STRUCT, chunk.statistics),
    ]
    return thrift.struct([thrift.i64(2, offset), thrift.nested(3, meta)])


def _element(name: str, kind: str) -> bytes:
    logical = {
        "text": [thrift.i32(6, 0), thrift.nested(10, [thrift.nested(1, [])])],
        "date": [thrift.i32(6, 6), thrift.nested(10, [thrift.nested(6, [])])],
        "micros_utc": [thrift.i32(6, 10), thrift.nested(10, [_timestamp(utc=True)])],
        "micros": [thrift.nested(10, [_timestamp(utc=False)])],
    }
    return thrift.struct(
        [thrift.i32(1, _PHYSICAL[kind]), thrift.i32(3, 1), thrift.binary(4, name.encode()), *logical.get(kind, [])]
    )


def _timestamp(*, utc: bool) -> thrift.Field:
    return thrift.nested(8, [thrift.flag(1, utc), thrift.nested(2, [thrift.nested(2, [])])])
