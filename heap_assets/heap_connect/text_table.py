"""Texts by number: most of Heap's columns say the same few things again and again.

A number takes four bytes and is moved, sorted and written without touching the text behind it. Number 0 is null.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from heap_assets.heap_connect.text_kernel import PADDING, move_slots

_Array = npt.NDArray[Any]

_SMALL = 256
_MOST_TEXTS, _MOST_BYTES = 1 << 20, 32 << 20
_MANY = 16_384
_SELDOM_REPEATED = 0.5  # of rows have a text not seen before


class TextList:
    """Texts numbered from 1 in the order in which they came. Only ever grows; one thread adds to it."""

    def __init__(self) -> None:
        self.ends = np.zeros(_SMALL, dtype=np.int64)
        self.arena = np.empty(_SMALL * PADDING, dtype=np.uint8)
        self.count = np.zeros(1, dtype=np.int64)

    def make_room(self, texts: int, size: int) -> None:
        """See to it that so many more texts of so many bytes can be kept."""
        count = int(self.count[0])
        used = int(self.ends[count])
        if count + texts + 1 > len(self.ends):
            self.ends = _grown(self.ends, count + 1, count + texts + 1)
        if used + size + PADDING > len(self.arena):  # texts are written eight bytes at a time
            self.arena = _grown(self.arena, used, used + size + PADDING)

    @property
    def addresses(self) -> tuple[int, int, int]:
        """What the compiled loop is told: where texts end, where they are, and where their number is."""
        return self.ends.ctypes.data, self.arena.ctypes.data, self.count.ctypes.data

    @property
    def nbytes(self) -> int:
        count = int(self.count[0])
        return int(self.ends[count]) + 8 * count

    def snapshot(self) -> tuple[_Array, _Array]:
        """Return where each text ends, and all texts; what is added later does not change them."""
        count = int(self.count[0])
        ends = self.ends[: count + 1]
        return ends, self.arena[: ends[count]]

    def texts(self) -> pl.Series:
        """Return all texts by number; the first is null."""
        ends, arena = self.snapshot()
        count = len(ends) - 1
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(arena)]
        found = pl.from_arrow(pa.Array.from_buffers(pa.large_string(), count, buffers))
        assert isinstance(found, pl.Series)
        return pl.concat([pl.Series([None], dtype=pl.String), found])


class TextTable(TextList):
    """Texts of some columns; a text gets one number in each column.

    Columns that seldom repeat one are told apart by their size of 0: looking for their texts would cost more than
    keeping them twice, and they are for a list of their own.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.rows = 0
        self.sizes = np.full(columns, _SMALL, dtype=np.int64)
        self.begins = np.arange(columns, dtype=np.int64) * _SMALL
        self.slots = np.zeros((columns * _SMALL, 2), dtype=np.uint64)
        self.filled = np.zeros(columns, dtype=np.int64)

    def widen(self) -> None:
        """Give columns whose slots are half full four times as many."""
        old, sizes, begins = self.slots, self.sizes, self.begins
        self.sizes = np.where(2 * self.filled >= sizes, 4 * sizes, sizes)
        self._lay_out(old, sizes, begins)

    def settle(self, rows: int) -> None:
        """Take note of so many more rows; columns that turn out to repeat little are no longer looked up."""
        self.rows += rows
        rare = (self.filled > _MANY) & (self.filled > _SELDOM_REPEATED * self.rows) & (self.sizes > 0)
        if rare.any():
            old, sizes, begins = self.slots, self.sizes, self.begins
            self.sizes = np.where(rare, 0, sizes)
            self._lay_out(old, sizes, begins)

    def _lay_out(self, old: _Array, sizes: _Array, begins: _Array) -> None:
        self.begins = np.cumsum(self.sizes) - self.sizes
        self.slots = np.zeros((int(self.sizes.sum()), 2), dtype=np.uint64)
        for column, (size, begin) in enumerate(zip(sizes, begins, strict=True)):
            if self.sizes[column]:
                new = self.slots[self.begins[column] : self.begins[column] + self.sizes[column]]
                move_slots(old[begin : begin + size], new)

    @property
    def lookup(self) -> tuple[_Array, _Array, int]:
        """What the compiled loop is told: where each column's slots are, how many, and where it counts those taken."""
        return self.slots.ctypes.data + 16 * self.begins, self.sizes, self.filled.ctypes.data

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.slots.nbytes

    @property
    def is_full(self) -> bool:
        """Whether it has grown so large that the next rows had better begin a new one."""
        count = int(self.count[0])
        return count > _MOST_TEXTS or int(self.ends[count]) > _MOST_BYTES


@dataclass
class Texts:
    """The table that a thread is adding to, a new one whenever the last is full."""

    table: TextTable | None = None

    def roomy(self, columns: int) -> TextTable:
        if self.table is None or self.table.is_full or len(self.table.sizes) != columns:
            self.table = TextTable(columns)
        return self.table


@dataclass(frozen=True)
class Batch:
    """Decoded rows. Columns in `numbered` hold numbers of `table` instead of their text, those in `once` of `texts`.

    Until the next batch is asked for, `original` gives the rows as the file spells them.
    """

    rows: pl.DataFrame
    table: TextTable | None = None
    numbered: frozenset[str] = frozenset()
    once: frozenset[str] = frozenset()
    texts: TextList | None = None
    original: Callable[[], pl.DataFrame] | None = None

    def list_of(self, name: str) -> TextList | None:
        """Return what the numbers of a column stand for; None if it holds none."""
        return self.table if name in self.numbered else self.texts if name in self.once else None

    def is_text(self, name: str) -> bool:
        return name in self.numbered or name in self.once

    def spelled(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of this batch with the text in place of its number."""
        lists = {name: found for name in rows.columns if (found := self.list_of(name)) is not None}
        texts = {id(found): found.texts() for found in lists.values()}
        return rows.with_columns(texts[id(found)].gather(rows[name]).alias(name) for name, found in lists.items())


def _grown(array: _Array, used: int, needed: int) -> _Array:
    larger = np.empty(max(needed, 2 * len(array)), dtype=array.dtype)
    larger[:used] = array[:used]
    return larger
