"""A Parquet file of flat columns, written row group by row group; the same to every reader as that of other writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import polars as pl

from heap_assets.parquet import thrift
from heap_assets.parquet.pages import DICTIONARY, KINDS, PLAIN, Chunk

_MAGIC: Final = b"PAR1"
_RLE: Final = 3
_INT32, _INT64, _DOUBLE, _BYTE_ARRAY, _BOOLEAN = 1, 2, 5, 6, 0
_PHYSICAL: Final = {
    "text": _BYTE_ARRAY,
    "int64": _INT64,
    "float64": _DOUBLE,
    "bool": _BOOLEAN,
    "date": _INT32,
    "micros_utc": _INT64,
    "micros": _INT64,
}


@dataclass(frozen=True)
class _Group:
    height: int
    unpacked: int
    size: int
    columns: Sequence[bytes]


class ParquetFile:
    """Writes a file; without :meth:`finish` it has no footer, and no reader takes it for whole.

    Parameters
    ----------
    schema
        Types as in :data:`KINDS`.
    """

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType]) -> None:
        self._kinds = {name: KINDS[dtype] for name, dtype in schema.items()}
        self._groups: list[_Group] = []
        self._file = path.open("wb")
        self._at = self._file.write(_MAGIC)

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, height: int, chunks: Mapping[str, Chunk]) -> dict[str, int]:
        """Write a row group; returns where its columns begin."""
        offsets, columns = {}, []
        for name, kind in self._kinds.items():
            chunk = chunks[name]
            offsets[name] = self._at
            columns.append(_column(name, kind, chunk, self._at, height))
            for piece in chunk.pieces:
                self.insert(piece)
        every = [chunks[name] for name in self._kinds]
        self._groups.append(
            _Group(height, sum(chunk.unpacked for chunk in every), sum(chunk.size for chunk in every), columns)
        )
        return offsets

    def insert(self, data: bytes | bytearray | memoryview) -> None:
        """Write something that readers pass over."""
        self._at += self._file.write(data)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the footer."""
        footer = self._footer(metadata)
        self._file.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)

    def _footer(self, metadata: Mapping[str, str]) -> bytes:
        root = thrift.struct([thrift.binary(4, b"root"), thrift.i32(5, len(self._kinds))])
        pairs = [
            thrift.struct([thrift.binary(1, key.encode()), thrift.binary(2, text.encode())])
            for key, text in metadata.items()
        ]
        by_type = thrift.struct([thrift.nested(1, [])])
        groups = [_row_group(number, group) for number, group in enumerate(self._groups)]
        elements = [root, *(_element(name, kind) for name, kind in self._kinds.items())]
        return thrift.struct(
            [
                thrift.i32(1, 1),
                thrift.listed(2, thrift.STRUCT, elements),
                thrift.i64(3, sum(group.height for group in self._groups)),
                thrift.listed(4, thrift.STRUCT, groups),
                *([thrift.listed(5, thrift.STRUCT, pairs)] if pairs else []),
                thrift.binary(6, b"heap_assets"),
                thrift.listed(7, thrift.STRUCT, [by_type] * len(self._kinds)),
            ]
        )


def _row_group(number: int, group: _Group) -> bytes:
    return thrift.struct(
        [
            thrift.listed(1, thrift.STRUCT, group.columns),
            thrift.i64(2, group.unpacked),
            thrift.i64(3, group.height),
            thrift.i64(6, group.size),
            thrift.i16(7, number),
        ]
    )


def _column(name: str, kind: str, chunk: Chunk, offset: int, height: int) -> bytes:
    encodings = [PLAIN, _RLE, *([DICTIONARY] if chunk.encoding == DICTIONARY else [])]
    meta = [
        thrift.i32(1, _PHYSICAL[kind]),
        thrift.listed(2, thrift.I32, [thrift.varint(encoding << 1) for encoding in encodings]),
        thrift.listed(3, thrift.BINARY, [thrift.sized(name.encode())]),
        thrift.i32(4, chunk.codec),
        thrift.i64(5, height),
        thrift.i64(6, chunk.unpacked),
        thrift.i64(7, chunk.size),
        thrift.i64(9, offset + chunk.data_at),
        *([thrift.i64(11, offset)] if chunk.encoding == DICTIONARY else []),
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
