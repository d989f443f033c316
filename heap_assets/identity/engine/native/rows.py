"""Rows of links as numbers: each link or sighting once per source, in a hash table by its ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heap_assets.identity.engine.native.intrinsics import prefetch
from heap_assets.identity.engine.native.kernel import I64, NONE, U16, U32, compiled
from heap_assets.identity.engine.native.memory import Growing
from heap_assets.identity.rules import MemoryLimitError

_GROUP = 32


@compiled
def slot_of(a: int, b: int, code: int, last: int) -> Any:
    """Return the first slot of the search for a row, in a table of `last` + 1 slots, a power of two."""
    mixed = (np.uint64(a) << np.uint64(32) | np.uint64(b)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(32) ^ np.uint64(code)) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64(mixed >> np.uint64(32)) & last


@compiled
def add_rows(
    a: U32, b: U32, first: I64, last: I64, tag: U16, slots: U32, count: int,
    row_a: U32, row_b: U32, row_first: I64, row_last: I64, row_tag: U16,
) -> int:  # fmt: skip
    """Add rows to the `count` that are there, or widen equal ones: seen earlier, seen later, decided by Heap.

    Rows are processed in groups, so that waits for memory overlap. `slots` hold the number of a row plus one, and are
    more than there will be rows. Returns the number of rows afterwards.
    """
    most = slots.size - 1
    at = np.empty(_GROUP, np.int64)
    for begin in range(0, a.size, _GROUP):
        size = min(_GROUP, a.size - begin)
        for i in range(size):
            at[i] = slot_of(a[begin + i], b[begin + i], tag[begin + i] >> np.uint16(1), most)
            prefetch(slots, at[i])
        for i in range(size):
            entry = slots[at[i]]
            if entry != 0:
                prefetch(row_a, np.int64(entry) - 1)
                prefetch(row_b, np.int64(entry) - 1)
                prefetch(row_tag, np.int64(entry) - 1)
        for i in range(size):
            new, slot = begin + i, at[i]
            while slots[slot] != 0:
                row = np.int64(slots[slot]) - 1
                if row_a[row] == a[new] and row_b[row] == b[new] and (row_tag[row] ^ tag[new]) < 2:
                    break
                slot = (slot + 1) & most
            if slots[slot] == 0:
                row = np.int64(count)
                count += 1
                slots[slot] = count
                row_a[row], row_b[row], row_tag[row] = a[new], b[new], tag[new]
                row_first[row], row_last[row] = first[new], last[new]
                continue
            row_first[row] = min(row_first[row], first[new])
            row_last[row] = max(row_last[row], last[new])
            row_tag[row] |= tag[new] & np.uint16(1)
    return count


@compiled
def enter_rows(row_a: U32, row_b: U32, row_tag: U16, slots: U32) -> None:
    """Insert rows that are all different into an empty table."""
    most = slots.size - 1
    for row in range(row_a.size):
        slot = slot_of(row_a[row], row_b[row], row_tag[row] >> np.uint16(1), most)
        while slots[slot] != 0:
            slot = (slot + 1) & most
        slots[slot] = row + 1


@compiled
def match_rows(
    rows: U32, row_a: U32, row_b: U32, row_tag: U16, a: U32, b: U32, tag: U16, slots: U32, matches: U32
) -> None:  # fmt: skip
    """Write for each of some rows the equal one of some links; `matches` comes filled with NONE.

    `slots` is the hash table of those links.
    """
    most = slots.size - 1
    for i in range(rows.size):
        row = rows[i]
        slot = slot_of(row_a[row], row_b[row], row_tag[row] >> np.uint16(1), most)
        while slots[slot] != 0:
            link = slots[slot] - 1
            if a[link] == row_a[row] and b[link] == row_b[row] and (tag[link] ^ row_tag[row]) < 2:
                matches[i] = link
                break
            slot = (slot + 1) & most


MOST_ROWS: Final = int(NONE)
"""Rows that 32 bits can number."""
_FEWEST: Final = 1 << 10
_KINDS: Final = (np.uint32, np.uint32, np.int64, np.int64, np.uint16)


@dataclass(frozen=True)
class Rows:
    """Rows; sightings (b is NONE) and links to themselves too.

    Attributes
    ----------
    a, b
        Nodes of the ends, in the direction in which the link was read.
    first, last
        Seen first and last, NEVER and BEFORE if at no time.
    tag
        The number of the source times two, plus one if the link is authoritative.
    """

    a: U32
    b: U32
    first: I64
    last: I64
    tag: U16

    @classmethod
    def none(cls) -> Rows:
        return cls.room(0)

    @classmethod
    def room(cls, size: int) -> Rows:
        """Return uninitialised rows."""
        a, b = np.empty((2, size), np.uint32)
        first, last = np.empty((2, size), np.int64)
        return cls(a, b, first, last, np.empty(size, np.uint16))

    def __getitem__(self, chosen: slice | U32 | NDArray[np.bool_]) -> Rows:
        return Rows(self.a[chosen], self.b[chosen], self.first[chosen], self.last[chosen], self.tag[chosen])

    def table(self) -> U32:
        """Return the hash table of rows that are all different."""
        slots = np.zeros(_slots_for(self.a.size), np.uint32)
        enter_rows(self.a, self.b, self.tag, slots)
        return slots


def _slots_for(rows: int) -> int:
    """Return a power of two that leaves a table of some rows at most half full."""
    return 1 << max(2 * rows, _FEWEST).bit_length()


class RowTable:
    """Growing rows; adding one that exists already widens it."""

    def __init__(self) -> None:
        self._columns = [Growing(kind, _FEWEST) for kind in _KINDS]
        self._known = 0
        self._slots = np.zeros(_slots_for(0), np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of their hash table."""
        return self._known * sum(np.dtype(kind).itemsize for kind in _KINDS) + 4 * _slots_for(self._known)

    def add(self, a: U32, b: U32, first: I64, last: I64, tag: U16) -> None:
        """Add rows.

        Raises MemoryLimitError if the system has no memory for them, or 32 bits do not number them.
        """
        if self._known + a.size > MOST_ROWS:
            raise MemoryLimitError(
                f"there are more than {self._known} links, and this engine numbers {MOST_ROWS} at most: resolve them "
                "on Spark (identity.engine: {spark: …})"
            )
        slots = _slots_for(self._known + a.size)
        try:
            for column in self._columns:
                column.grow(self._known + a.size)
            if slots > self._slots.size:
                del self._slots
                self._slots = np.zeros(slots, np.uint32)
                rows = self.rows
                enter_rows(rows.a, rows.b, rows.tag, self._slots)
        except MemoryError as error:
            raise MemoryLimitError(
                f"there are more than {self._known} links, which do not fit into this machine's memory: give it more"
            ) from error
        own = self._all
        self._known = add_rows(
            a, b, first, last, tag, self._slots, self._known, own.a, own.b, own.first, own.last, own.tag
        )

    @property
    def _all(self) -> Rows:
        return Rows(*(column.array for column in self._columns))

    @property
    def rows(self) -> Rows:
        """The rows; no reference may be held while more are added."""
        return self._all[: self._known]
