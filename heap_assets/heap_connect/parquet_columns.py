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

from heap_assets.heap_connect.parquet_kernel import find_same, number_anew, write_pages
from heap_assets.heap_connect.text_kernel import PADDING, move_slots
from heap_assets.heap_connect.text_table import TextTable
from heap_assets.parquet import Buffer, Chunk, Packer, Packing, levels, varint

_Array = npt.NDArray[Any]

NO_SLOTS = np.zeros((1, 2), dtype=np.uint64)
_FEWEST_SLOTS = 1 << 10


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


@dataclass
class Encoder:
    """Encodes row groups of columns; one for each thread."""

    packing: Packing
    _names: _Array = field(default_factory=lambda: np.zeros(1, dtype=np.int32))

    def __post_init__(self) -> None:
        self._packer = Packer(self.packing)

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
            return self._packer.chunk(rows, 0, [levels(rows, 0, None)])
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
        head = bytes([width]) + varint(groups << 1 | 1)
        data: list[Buffer] = [levels(rows, filled, bits), head, packed.data[: groups * width]]
        return self._packer.chunk(rows, filled, data, dictionary.data[: size + 4 * texts], texts)

    def _spelled_out(self, column: TextColumn, begin: int, end: int) -> Chunk:
        rows, placed = end - begin, column.placed[begin:end]
        has = placed > 0
        used = placed[has]
        size = int(column.lengths[used].sum()) + 4 * len(used)
        texts, nothing = np.empty(size + PADDING, dtype=np.uint8), np.zeros(1, dtype=np.uint64)
        write_pages(used, len(used), column.starts, column.lengths, texts.ctypes.data, used, 0, 1, nothing.ctypes.data)
        bits = np.packbits(has, bitorder="little")
        return self._packer.chunk(rows, len(used), [levels(rows, len(used), bits), texts.data[:size]])

    def _numbers(self, column: pl.Series) -> Chunk:
        rows, filled = len(column), len(column) - column.null_count()
        bits = np.packbits(column.is_not_null().to_numpy(), bitorder="little") if filled < rows else None
        values = column.drop_nulls().to_physical().to_numpy()
        spelled = np.packbits(values, bitorder="little") if column.dtype == pl.Boolean else values
        least = most = b""
        if filled and column.dtype not in (pl.Boolean(), pl.Float64()):  # NaN has no place among others
            kind = "<i" if column.dtype == pl.Date else "<q"
            least, most = struct.pack(kind, values.min()), struct.pack(kind, values.max())
        data: list[Buffer] = [levels(rows, filled, bits), spelled.tobytes()]
        return self._packer.chunk(rows, filled, data, least=least, most=most)
