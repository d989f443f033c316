"""Columns on their way into a Parquet file: numbers of texts, or plain numbers; encoded one row group at a time.

Polars finds out anew, for every row group, which texts there are. Here that is known from reading them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from heap_assets.heap_connect import parquet_thrift as thrift
from heap_assets.heap_connect.parquet_kernel import find_same, number_anew, write_pages
from heap_assets.heap_connect.text_kernel import PADDING, move_slots
from heap_assets.heap_connect.text_table import TextTable

_Array = npt.NDArray[Any]

NO_SLOTS = np.zeros((1, 2), dtype=np.uint64)
_FEWEST_SLOTS = 1 << 10
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8

KINDS: dict[pl.DataType, str] = {
    pl.String(): "text",
    pl.Int64(): "int64",
    pl.Float64(): "float64",
    pl.Boolean(): "bool",
    pl.Date(): "date",
    pl.Datetime("us", "UTC"): "micros_utc",
    pl.Datetime("us"): "micros",
}
"""What can be encoded here, and what it is called in a part's index."""


class Pool:
    """Texts of several tables in one numbering, equal texts under one number; text 0 is null.

    It grows with its tables: nothing is looked at twice.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._tables: list[TextTable] = []
        self._numbers: dict[int, _Array] = {}
        self._slots = np.zeros((_FEWEST_SLOTS, 2), dtype=np.uint64)
        self._owners, self._offsets = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self.lengths, self.starts = np.zeros(1, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        self.holders: list[_Array] = []

    def take(self, tables: Sequence[TextTable]) -> None:
        """Number what these tables have by now; what they do not need is let go of."""
        if any(all(known is not table for table in tables) for known in self._tables):
            self._forget()
        for table in tables:
            if id(table) not in self._numbers:
                self._tables.append(table)
                self._numbers[id(table)] = np.zeros(1, dtype=np.uint32)
        if not self._tables:
            return
        texts = [table.snapshot() for table in self._tables]
        self.holders = [arena for _, arena in texts]
        fresh = [ends[len(self.numbers(t)) - 1 :] for t, (ends, _) in zip(self._tables, texts, strict=True)]
        sizes = [len(ends) - 1 for ends in fresh]
        begin = len(self.lengths)
        self._owners = np.concatenate([self._owners, np.repeat(np.arange(len(sizes)), sizes)])
        self._offsets = np.concatenate([self._offsets, *(ends[:-1] for ends in fresh)])
        self.lengths = np.concatenate([self.lengths, *(np.diff(ends) for ends in fresh)]).astype(np.uint32)
        addresses = np.array([arena.ctypes.data for arena in self.holders], dtype=np.int64)
        self.starts = addresses[self._owners] + self._offsets  # an arena moves when it grows
        self._slots, first = lowest_equal(self.starts, self.lengths, self._slots, begin)
        for table, found in zip(self._tables, np.split(first, np.cumsum(sizes)[:-1]), strict=True):
            self._numbers[id(table)] = np.concatenate([self._numbers[id(table)], found])

    def numbers(self, table: TextTable) -> _Array:
        """Return the number here of each of a table's numbers."""
        return self._numbers[id(table)]


def lowest_equal(starts: _Array, lengths: _Array, slots: _Array, begin: int) -> tuple[_Array, _Array]:
    """Return for each text from `begin` on the lowest number of one that equals it, and the slots that know them all.

    Parameters
    ----------
    slots
        As they were returned for the texts before `begin`; :data:`NO_SLOTS` if that is 1.
    """
    if len(slots) < 2 * len(starts):
        larger = np.zeros((1 << (2 * len(starts)).bit_length(), 2), dtype=np.uint64)
        move_slots(slots, larger)
        slots = larger
    first = np.empty(len(starts) - begin, dtype=np.uint32)
    find_same(starts, lengths, slots, begin, first)
    return slots, first


@dataclass(frozen=True)
class TextColumn:
    """A column of text: for each row a number among texts at addresses, 0 where it is null.

    If it does not say that it `repeats` any, texts of several numbers may be equal, and it is spelled out.
    """

    placed: _Array
    starts: _Array
    lengths: _Array
    holders: object = field(repr=False, default=None)
    repeats: bool = True

    @classmethod
    def of(cls, column: pl.Series) -> TextColumn:
        """Take a column whose texts have no numbers."""
        if column.null_count() == len(column):
            return cls.nothing(len(column))
        array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        ends = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        # read eight bytes at a time: more must follow
        data = np.concatenate([np.frombuffer(array.buffers()[2] or b"", dtype=np.uint8), np.zeros(PADDING, np.uint8)])
        starts, lengths = np.append(0, ends[:-1] + data.ctypes.data), np.append(0, np.diff(ends)).astype(np.uint32)
        _, first = lowest_equal(starts, lengths, NO_SLOTS, 1)
        return cls(np.where(column.is_null().to_numpy(), 0, first).astype(np.uint32), starts, lengths, data)

    @classmethod
    def nothing(cls, height: int) -> TextColumn:
        return cls(np.zeros(height, np.uint32), np.zeros(1, np.int64), np.zeros(1, np.uint32))


@dataclass(frozen=True)
class Chunk:
    """One column of one row group, as it is written.

    Attributes
    ----------
    pages
        Page headers and pages.
    places
        Where the two pages' contents are within `pages`, and what they unpack to: texts, start, size, unpacked size of
        the dictionary (0 each without one); start, size, unpacked size of the data; rows without a value.
    """

    pages: bytes
    unpacked: int
    places: tuple[int, int, int, int, int, int, int, int]
    statistics: bytes


@dataclass
class Encoder:
    """Encodes row groups of columns; one for each thread."""

    codec: str
    level: int | None = None
    _names: _Array = field(default_factory=lambda: np.zeros(1, dtype=np.int32))

    def __post_init__(self) -> None:
        self._compress = pa.Codec(self.codec, self.level).compress

    def encode(self, column: TextColumn | pl.Series, begin: int, end: int) -> Chunk:
        if isinstance(column, TextColumn):
            return self._texts(column, begin, end)
        return self._numbers(column.slice(begin, end - begin))

    def _texts(self, column: TextColumn, begin: int, end: int) -> Chunk:
        if not column.repeats:
            return self._spelled_out(column, begin, end)
        rows = end - begin
        if len(self._names) < len(column.lengths):
            self._names = np.zeros(2 * len(column.lengths), dtype=np.int32)
        codes, used = np.empty(rows, dtype=np.uint32), np.empty(min(rows, len(column.lengths)), dtype=np.uint32)
        bits = np.zeros((rows + 7) // 8, dtype=np.uint8)
        texts, filled, size = number_anew(column.placed[begin:end], column.lengths, self._names, used, codes, bits)
        if not filled:
            return self._chunk(rows, 0, _levels(rows, 0, None), None, 0)
        width = max(1, (texts - 1).bit_length())
        groups = (filled + 7) // 8
        dictionary = np.empty(size + 4 * texts + PADDING, dtype=np.uint8)
        packed = np.zeros(groups * width + PADDING, dtype=np.uint8)
        write_pages(
            used,
            texts,
            column.starts,
            column.lengths,
            dictionary.ctypes.data,
            codes,
            filled,
            width,
            packed.ctypes.data,
        )
        head = bytes([width]) + thrift.varint(groups << 1 | 1)
        data = _levels(rows, filled, bits) + head + packed[: groups * width].tobytes()
        return self._chunk(rows, filled, data, dictionary.data[: size + 4 * texts], texts)

    def _spelled_out(self, column: TextColumn, begin: int, end: int) -> Chunk:
        rows, placed = end - begin, column.placed[begin:end]
        has = placed > 0
        used = placed[has]
        size = int(column.lengths[used].sum()) + 4 * len(used)
        texts, nothing = np.empty(size + PADDING, dtype=np.uint8), np.zeros(1, dtype=np.uint64)
        write_pages(used, len(used), column.starts, column.lengths, texts.ctypes.data, used, 0, 1, nothing.ctypes.data)
        bits = np.packbits(has, bitorder="little")
        data = b"".join([_levels(rows, len(used), bits), texts.data[:size]])
        return self._chunk(rows, len(used), data, None, 0)

    def _numbers(self, column: pl.Series) -> Chunk:
        rows, filled = len(column), len(column) - column.null_count()
        bits = np.packbits(column.is_not_null().to_numpy(), bitorder="little") if filled < rows else None
        values = column.drop_nulls().to_physical().to_numpy()
        spelled = np.packbits(values, bitorder="little") if column.dtype == pl.Boolean else values
        low_high = b""
        if filled and column.dtype not in (pl.Boolean(), pl.Float64()):  # NaN has no place among others
            kind = "<i" if column.dtype == pl.Date else "<q"
            low_high = struct.pack(kind, values.min()) + struct.pack(kind, values.max())
        return self._chunk(rows, filled, _levels(rows, filled, bits) + spelled.tobytes(), None, 0, low_high)

    def _chunk(
        self, rows: int, filled: int, data: bytes, dictionary: memoryview | None, texts: int, low_high: bytes = b""
    ) -> Chunk:
        pages = bytearray()
        unpacked = begin = size = 0
        if dictionary is not None:
            packed = self._compress(dictionary, asbytes=True)
            told = thrift.nested(7, [thrift.i32(1, texts), thrift.i32(2, PLAIN)])
            pages += _page_header(_DICTIONARY_PAGE, len(dictionary), len(packed), told)
            begin, size, unpacked = len(pages), len(packed), len(pages) + len(dictionary)
            pages += packed
        packed = self._compress(data, asbytes=True)
        encoding = PLAIN if dictionary is None else RLE_DICTIONARY
        told = thrift.nested(5, [thrift.i32(1, rows), thrift.i32(2, encoding), thrift.i32(3, RLE), thrift.i32(4, RLE)])
        header = _page_header(_DATA_PAGE, len(data), len(packed), told)
        unpacked += len(header) + len(data)
        pages += header
        at = len(pages)
        pages += packed
        places = (texts, begin, size, len(dictionary or b""), at, len(packed), len(data), rows - filled)
        half = len(low_high) // 2
        bounds = [thrift.binary(5, low_high[half:]), thrift.binary(6, low_high[:half])] if half else []
        return Chunk(bytes(pages), unpacked, places, thrift.struct([thrift.i64(3, rows - filled), *bounds]))


def _levels(rows: int, filled: int, bits: _Array | None) -> bytes:
    """Spell which rows have a value: one run if all or none, else one bit each."""
    if bits is None or filled in (0, rows):
        spelled = thrift.varint(rows << 1) + bytes([filled == rows and rows > 0])
    else:
        spelled = thrift.varint(len(bits) << 1 | 1) + bits.tobytes()
    return len(spelled).to_bytes(4, "little") + spelled


def _page_header(kind: int, unpacked: int, packed: int, told: thrift.Field) -> bytes:
    return thrift.struct([thrift.i32(1, kind), thrift.i32(2, unpacked), thrift.i32(3, packed), told])
