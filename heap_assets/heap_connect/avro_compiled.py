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
    OTHER_TIME,
    TEXT,
    TIME,
    decode,
)
from heap_assets.heap_connect.text_kernel import PADDING, SLOTS_FULL
from heap_assets.heap_connect.text_table import Batch, TextList, Texts, TextTable

BYTES_PER_BATCH = 8 << 20
_READ_BYTES = 1 << 20
_MOST_SNAPPY = 64  # times the bytes that come out of one: three stand for 64 at most
_NO_TEXTS = TextTable(0)
_NUMBERS, _VIEWS, _LONGS = range(3)

_Room = Callable[[int], memoryview]


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


@dataclass(frozen=True)
class Reading:
    """How text is read.

    Attributes
    ----------
    texts
        Where text columns get their numbers; None leaves text as it is.
    spelled
        Columns that stay text in any case.
    times
        Text columns that are read as times if all of them are spelled as Heap spells them, and else stay text.
    """

    texts: Texts | None = None
    spelled: Container[str] = ()
    times: Container[str] = ()


AS_TEXT = Reading()


def read_flat(
    path: Path, header: AvroHeader, fields: list[FlatField], batch_rows: int, reading: Reading = AS_TEXT
) -> Iterator[Batch]:
    """Decode a file batch by batch.

    Raises
    ------
    BlockError
        Naming the first block that is cut short, damaged, or does not hold what the schema says.
    """
    decoder = _Decoder(fields, reading)
    for first, blocks in _grouped(path, header, batch_rows, decoder.memory):
        try:
            batch = decoder.batch(first, blocks)
        except _OtherTimeError:
            decoder = _Decoder(fields, Reading(reading.texts, reading.spelled))
            batch = decoder.batch(first, blocks)
        yield batch


class _Blocks:
    """Decompressed blocks, one behind the other in memory."""

    def __init__(self) -> None:
        self.data = np.empty(BYTES_PER_BATCH + (1 << 20), dtype=np.uint8)
        self.counts: list[int] = []
        self.edges = [0]

    def room(self, size: int) -> memoryview:
        """Return where the next block can be put; it stays there if it is :meth:`added <add>`."""
        end = self.edges[-1]
        if end + size + PADDING > len(self.data):
            larger = np.empty(2 * (end + size + PADDING), dtype=np.uint8)
            larger[:end] = self.data[:end]
            self.data = larger
        return self.data.data[end : end + size]

    def add(self, count: int, size: int) -> None:
        self.counts.append(count)
        self.edges.append(self.edges[-1] + size)

    def clear(self) -> None:
        self.counts, self.edges = [], [0]

    @property
    def is_full(self) -> bool:
        return self.edges[-1] >= BYTES_PER_BATCH


def _grouped(
    path: Path, header: AvroHeader, batch_rows: int, memory: Callable[[], _Blocks]
) -> Iterator[tuple[int, _Blocks]]:
    """Yield the number of a first block, and blocks until they are enough for a batch."""
    with path.open("rb", buffering=_READ_BYTES) as file:
        file.seek(header.blocks_at)
        first = 0
        while True:
            blocks = memory()
            while not blocks.is_full and sum(blocks.counts) < batch_rows:
                if not _add_block(file, header, first + len(blocks.counts), blocks):
                    break
            if not blocks.counts:
                return
            yield first, blocks
            first += len(blocks.counts)


def blocks_of(path: Path, header: AvroHeader) -> Iterator[tuple[int, int, bytes]]:
    """Go through a file's blocks: number, rows, decompressed bytes."""
    for first, blocks in _grouped(path, header, 1, _Blocks):
        for i, count in enumerate(blocks.counts):
            yield first + i, count, blocks.data[blocks.edges[i] : blocks.edges[i + 1]].tobytes()


def _add_block(file: BinaryIO, header: AvroHeader, number: int, blocks: _Blocks) -> bool:
    """Read, decompress and check the next block; False if there is none."""
    block = read_block(file, header, number)
    if block is None:
        return False
    count, data = block
    try:
        size = DECOMPRESSORS[header.codec](data, blocks.room)
    except (zlib.error, cramjam.DecompressionError, ValueError) as error:
        raise BlockError(number, f"it does not decompress as {header.codec}, or its checksum is wrong") from error
    if not 0 <= count <= max(size, 1 << 20):
        raise BlockError(number, "its number of rows makes no sense: the file is damaged here")
    blocks.add(count, size)
    return True


def _snappy(data: bytes, room: _Room) -> int:
    packed, checksum = memoryview(data)[:-4], data[-4:]
    size = cramjam.snappy.decompress_raw_len(packed)
    if size > _MOST_SNAPPY * len(packed):  # a damaged length must not ask for more memory than can be filled
        raise ValueError("length")
    place = room(size)
    if cramjam.snappy.decompress_raw_into(packed, place) != size or zlib.crc32(place) != int.from_bytes(
        checksum, "big"
    ):
        raise ValueError("checksum")
    return size


def _through(decompress: Callable[[bytes], Any]) -> Callable[[bytes, _Room], int]:
    def into(data: bytes, room: _Room) -> int:
        plain = memoryview(decompress(data)).cast("B")
        room(len(plain))[:] = plain
        return len(plain)

    return into


DECOMPRESSORS: Mapping[str, Callable[[bytes, _Room], int]] = {
    "null": _through(lambda data: data),
    "deflate": _through(lambda data: zlib.decompress(data, -15)),
    "snappy": _snappy,
    "zstandard": _through(cramjam.zstd.decompress),
    "bzip2": _through(cramjam.bzip2.decompress),
    "xz": _through(cramjam.xz.decompress),
}


class _OtherTimeError(Exception):
    """A time is spelled as the compiled loop does not know it."""


class _Decoder:
    def __init__(self, fields: list[FlatField], reading: Reading) -> None:
        self.fields = fields
        self.texts = reading.texts
        self.kinds = [_kind(field, reading) for field in fields]
        groups = [_group(kind) for kind in self.kinds]
        self.sizes = [groups.count(group) for group in range(3)]
        self.places = [groups[:i].count(group) for i, group in enumerate(groups)]
        self._how = (
            np.array(self.kinds, dtype=np.int64),
            np.array([field.null_branch for field in fields], dtype=np.int64),
            np.array([len(f.symbols) if f.kind == ENUM else f.size for f in fields], dtype=np.int64),
            np.array(self.places, dtype=np.int64),
        )
        self._blocks = _Blocks()

    def memory(self) -> _Blocks:
        """Return where blocks are put: the same place again if no column looks into it."""
        if self.sizes[_VIEWS]:
            return _Blocks()
        self._blocks.clear()
        return self._blocks

    def batch(self, first: int, blocks: _Blocks) -> Batch:
        rows, data, counts = sum(blocks.counts), blocks.data, np.array(blocks.counts, dtype=np.int64)
        edges = np.array(blocks.edges, dtype=np.int64)
        table = self.texts.roomy(self.sizes[_NUMBERS]) if self.texts is not None else _NO_TEXTS
        views = np.empty((self.sizes[_VIEWS], rows, 2), dtype=np.uint64)
        longs = np.empty((self.sizes[_LONGS], rows), dtype=np.int64)
        numbers = np.empty((self.sizes[_NUMBERS], rows), dtype=np.uint32)
        valid = np.ones((len(self.fields), rows), dtype=np.uint8)
        rare = [table.sizes[place] == 0 for place in range(self.sizes[_NUMBERS])]
        once = TextList()
        once.make_room(min(rows * sum(rare), int(edges[-1])), int(edges[-1]) if any(rare) else 0)
        block = row = 0
        fault = SLOTS_FULL
        while fault == SLOTS_FULL:
            if self.sizes[_NUMBERS]:
                size = int(edges[-1] - edges[block])
                table.make_room(min((rows - row) * self.sizes[_NUMBERS], size), size)
            into = (views, longs, valid, numbers)
            known = (*table.lookup, *table.addresses, *once.addresses)
            block, row, fault = decode(data.ctypes.data, edges, counts, block, row, *self._how, *into, *known)
            if fault == SLOTS_FULL:
                table.widen()
        if fault == OTHER_TIME:
            raise _OtherTimeError
        if fault:
            raise BlockError(first + block, FAULTS.get(fault, "it has bytes left over: the file is damaged here"))
        if self.sizes[_NUMBERS]:
            table.settle(rows)
        columns = []
        for field, kind, place, has in zip(self.fields, self.kinds, self.places, valid, strict=True):
            if kind == NUMBERED:
                columns.append(pl.Series(field.name, numbers[place]))
            elif kind in (TEXT, FIXED):
                columns.append(_viewed(field, views[place], has, data))
            else:
                columns.append(_number(field, kind, longs[place], has))
        by_number = [
            (f.name, rare[at]) for f, k, at in zip(self.fields, self.kinds, self.places, strict=True) if k == NUMBERED
        ]
        return Batch(
            pl.DataFrame(columns),
            table if not all(rare) else None,
            frozenset(name for name, is_rare in by_number if not is_rare),
            frozenset(name for name, is_rare in by_number if is_rare),
            once if any(rare) else None,
            lambda: self._as_text(first, blocks),
        )

    def _as_text(self, first: int, blocks: _Blocks) -> pl.DataFrame:
        return _Decoder(self.fields, AS_TEXT).batch(first, blocks).rows


def _kind(field: FlatField, reading: Reading) -> int:
    if field.kind != TEXT or field.dtype != pl.String:
        return field.kind
    if field.name in reading.times:
        return TIME
    return TEXT if reading.texts is None or field.name in reading.spelled else NUMBERED


def _group(kind: int) -> int:
    if kind == NUMBERED:
        return _NUMBERS
    return _VIEWS if kind in (TEXT, FIXED) else _LONGS


def _mask(field: FlatField, valid: Any) -> Any:
    nullable = field.null_branch != NEVER_NULL and not valid.all()
    return pa.py_buffer(np.packbits(valid, bitorder="little")) if nullable else None


def _viewed(field: FlatField, views: Any, valid: Any, data: Any) -> pl.Series:
    # An Arrow view: 4 bytes of length, then 12 bytes inline, or 4 of prefix, buffer number and offset.
    kind = pa.string_view() if field.dtype == pl.String else pa.binary_view()
    buffers = [_mask(field, valid), pa.py_buffer(views), pa.py_buffer(data)]
    return _series(field.name, pa.Array.from_buffers(kind, len(views), buffers))


def _number(field: FlatField, kind: int, longs: Any, valid: Any) -> pl.Series:
    values = longs.view(np.float64) if kind == DOUBLE else longs
    arrow = pa.float64() if kind == DOUBLE else pa.int64()
    found = _series(field.name, pa.Array.from_buffers(arrow, len(longs), [_mask(field, valid), pa.py_buffer(values)]))
    if kind == TIME:
        return found.cast(pl.Datetime("us", "UTC"))
    if kind == ENUM:
        return pl.Series(field.symbols, dtype=pl.String).gather(found).alias(field.name)
    if kind == BOOLEAN:
        return found != 0
    return field.scale(found) if field.scale else found


def _series(name: str, array: Any) -> pl.Series:
    found = pl.from_arrow(array)
    assert isinstance(found, pl.Series)
    return found.alias(name)
