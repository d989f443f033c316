"""A compiled decoder of flat Avro records: what Heap exports, several times faster than general readers.

Strings are not copied: columns are views into the decompressed blocks, or numbers of texts seen before. Records with
nested fields, decimals or unions of several types are not for this module (:attr:`AvroSchema.flat` is None for them).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cramjam
import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.heap_connect.avro_container import AvroHeader, BlockError, read_block
from heap_assets.heap_connect.avro_kernel import (
    BOOLEAN,
    DOUBLE,
    ENUM,
    FAULTS,
    FIXED,
    NEVER_NULL,
    NUMBERED,
    TEXT,
    decode,
)
from heap_assets.heap_connect.text_kernel import PADDING, SLOTS_FULL
from heap_assets.heap_connect.text_table import Batch, Texts, TextTable

BYTES_PER_BATCH = 8 << 20
_NO_TEXTS = TextTable(0)


@dataclass(frozen=True)
class FlatField:
    """How one field is spelled: its kind, which branch of its union is null, the size of a fixed, enum symbols."""

    name: str
    kind: int
    null_branch: int
    dtype: pl.DataType
    size: int = 0
    symbols: tuple[str, ...] = ()
    scale: Callable[[pl.Series], pl.Series] | None = None


def read_flat(
    path: Path,
    header: AvroHeader,
    fields: list[FlatField],
    batch_rows: int,
    texts: Texts | None = None,
    spelled: Container[str] = (),
) -> Iterator[Batch]:
    """Decode a file batch by batch.

    Parameters
    ----------
    texts
        Where text columns get their numbers; None leaves text as it is.
    spelled
        Columns that stay text in any case.

    Raises
    ------
    BlockError
        Naming the first block that is cut short, damaged, or does not hold what the schema says.
    """
    decoder = _Decoder(fields, texts, spelled)
    with path.open("rb") as file:
        file.seek(header.blocks_at)
        for first, counts, blocks in _grouped(file, header, batch_rows):
            yield decoder.batch(first, counts, blocks)


def blocks_of(file: BinaryIO, header: AvroHeader) -> Iterator[tuple[int, int, bytes]]:
    """Go through a file's blocks: number, rows, decompressed bytes."""
    decompress = DECOMPRESSORS[header.codec]
    number = 0
    while (block := read_block(file, header, number)) is not None:
        count, data = block
        try:
            plain = decompress(data)
        except (zlib.error, cramjam.DecompressionError, ValueError) as error:
            raise BlockError(number, f"it does not decompress as {header.codec}, or its checksum is wrong") from error
        if not 0 <= count <= max(len(plain), 1 << 20):
            raise BlockError(number, "its number of rows makes no sense: the file is damaged here")
        yield number, count, plain
        number += 1


def _grouped(file: BinaryIO, header: AvroHeader, batch_rows: int) -> Iterator[tuple[int, list[int], list[bytes]]]:
    counts: list[int] = []
    blocks: list[bytes] = []
    rows = size = 0
    for number, count, plain in blocks_of(file, header):
        counts.append(count)
        blocks.append(plain)
        rows, size = rows + count, size + len(plain)
        if rows >= batch_rows or size >= BYTES_PER_BATCH:
            yield number + 1 - len(counts), counts, blocks
            counts, blocks, rows, size = [], [], 0, 0
    if counts:
        yield number + 1 - len(counts), counts, blocks


def _snappy(data: bytes) -> bytes:
    plain = bytes(cramjam.snappy.decompress_raw(data[:-4]))
    if zlib.crc32(plain) != int.from_bytes(data[-4:], "big"):
        raise ValueError("checksum")
    return plain


DECOMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "null": lambda data: data,
    "deflate": lambda data: zlib.decompress(data, -15),
    "snappy": _snappy,
    "zstandard": lambda data: bytes(cramjam.zstd.decompress(data)),
    "bzip2": lambda data: bytes(cramjam.bzip2.decompress(data)),
    "xz": lambda data: bytes(cramjam.xz.decompress(data)),
}


class _Decoder:
    def __init__(self, fields: list[FlatField], texts: Texts | None, spelled: Container[str]) -> None:
        self.fields = fields
        self.texts = texts
        by_number = [
            texts is not None and f.kind == TEXT and f.dtype == pl.String and f.name not in spelled for f in fields
        ]
        self.numbered = [field for field, numbered in zip(fields, by_number, strict=True) if numbered]
        self.others = [field for field, numbered in zip(fields, by_number, strict=True) if not numbered]
        place = {f.name: i for group in (self.numbered, self.others) for i, f in enumerate(group)}
        kinds = [NUMBERED if numbered else f.kind for f, numbered in zip(fields, by_number, strict=True)]
        self.kinds = np.array(kinds, dtype=np.int64)
        self.null_branches = np.array([field.null_branch for field in fields], dtype=np.int64)
        self.sizes = np.array([len(f.symbols) if f.kind == ENUM else f.size for f in fields], dtype=np.int64)
        self.places = np.array([place[field.name] for field in fields], dtype=np.int64)

    def batch(self, first: int, counts: list[int], blocks: list[bytes]) -> Batch:
        data = np.frombuffer(b"".join([*blocks, bytes(PADDING)]), dtype=np.uint8)
        rows = sum(counts)
        table = self.texts.roomy(len(self.numbered)) if self.texts is not None else _NO_TEXTS
        words = np.empty((len(self.others), rows, 2), dtype=np.uint64)
        valid = np.ones((len(self.others), rows), dtype=np.uint8)
        numbers = np.empty((len(self.numbered), rows), dtype=np.uint32)
        how = (self.kinds, self.null_branches, self.sizes, self.places)
        base = at = data.ctypes.data
        row = 0
        for number, (count, block) in enumerate(zip(counts, blocks, strict=True)):
            end = at + len(block)
            if self.numbered:
                table.make_room(min(count * len(self.numbered), len(block)), len(block))
            stopped = SLOTS_FULL
            while stopped == SLOTS_FULL:
                stopped = decode(base, at, end, count, row, *how, words, valid, numbers, *table.addresses)
                if stopped == SLOTS_FULL:
                    table.widen()
                    table.make_room(min(count * len(self.numbered), len(block)), len(block))
            if stopped != end:
                fault = FAULTS.get(stopped, "it has bytes left over: the file is damaged here")
                raise BlockError(first + number, fault)
            at, row = end, row + count
        if self.numbered:
            table.settle(rows)
        return self._put_together(table, words, valid, numbers, data)

    def _put_together(self, table: TextTable, words: Any, valid: Any, numbers: Any, data: Any) -> Batch:
        columns = {f.name: pl.Series(f.name, numbers[i]) for i, f in enumerate(self.numbered)}
        columns |= {f.name: self._column(f, words[i], valid[i], data) for i, f in enumerate(self.others)}
        rows = pl.DataFrame([columns[field.name] for field in self.fields])
        return Batch(rows, table, frozenset(f.name for f in self.numbered)) if self.numbered else Batch(rows)

    @staticmethod
    def _column(field: FlatField, words: Any, valid: Any, data: Any) -> pl.Series:
        nullable = field.null_branch != NEVER_NULL and not valid.all()
        mask = pa.py_buffer(np.packbits(valid, bitorder="little")) if nullable else None
        if field.kind in (TEXT, FIXED):
            # An Arrow view: 4 bytes of length, then 12 bytes inline, or 4 of prefix, buffer number and offset.
            views = pa.py_buffer(words)
            kind = pa.string_view() if field.dtype == pl.String else pa.binary_view()
            array = pa.Array.from_buffers(kind, len(words), [mask, views, pa.py_buffer(data)])
            return _series(field.name, array)
        if field.kind == DOUBLE:
            doubles = np.ascontiguousarray(words[:, 0]).view(np.float64)
            array = pa.Array.from_buffers(pa.float64(), len(words), [mask, pa.py_buffer(doubles)])
        else:
            longs = np.ascontiguousarray(words[:, 0]).view(np.int64)
            array = pa.Array.from_buffers(pa.int64(), len(words), [mask, pa.py_buffer(longs)])
        numbers = _series(field.name, array)
        if field.kind == ENUM:
            return pl.Series(field.symbols, dtype=pl.String).gather(numbers).alias(field.name)
        if field.kind == BOOLEAN:
            return numbers != 0
        return field.scale(numbers) if field.scale else numbers


def _series(name: str, array: Any) -> pl.Series:
    found = pl.from_arrow(array)
    assert isinstance(found, pl.Series)
    return found.alias(name)
