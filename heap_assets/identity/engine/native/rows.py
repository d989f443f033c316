"""Rows of links as numbers, one per link and source, however often it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heap_assets.identity.engine.native import kernel_rows
from heap_assets.identity.engine.native.kernel import I64, U16, U32
from heap_assets.identity.engine.native.memory import Growing
from heap_assets.identity.errors import MemoryLimitError

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
        """Return rows of which nothing is said yet."""
        a, b = np.empty((2, size), np.uint32)
        first, last = np.empty((2, size), np.int64)
        return cls(a, b, first, last, np.empty(size, np.uint16))

    def __getitem__(self, chosen: slice | U32 | NDArray[np.bool_]) -> Rows:
        return Rows(self.a[chosen], self.b[chosen], self.first[chosen], self.last[chosen], self.tag[chosen])

    def table(self) -> U32:
        """Return the slots by which rows that are all different are found (see kernel_rows)."""
        slots = np.zeros(_slots_for(self.a.size), np.uint32)
        kernel_rows.enter_rows(self.a, self.b, self.tag, slots)
        return slots


def _slots_for(rows: int) -> int:
    """Return a power of two that leaves a table of some rows at most half full."""
    return 1 << max(2 * rows, _FEWEST).bit_length()


class RowTable:
    """Rows that grow by what is read; a row that is there already is widened."""

    def __init__(self) -> None:
        self._columns = [Growing(kind, _FEWEST) for kind in _KINDS]
        self._known = 0
        self._slots = np.zeros(_slots_for(0), np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes of what there is, and of the table by which it is found."""
        return self._known * sum(np.dtype(kind).itemsize for kind in _KINDS) + 4 * _slots_for(self._known)

    def add(self, a: U32, b: U32, first: I64, last: I64, tag: U16) -> None:
        """Add rows.

        Raises
        ------
        MemoryLimitError
            If the system has no memory for them.
        """
        wanted = _slots_for(self._known + a.size)
        try:
            for column in self._columns:
                column.grow(self._known + a.size)
            if wanted > self._slots.size:
                del self._slots
                self._slots = np.zeros(wanted, np.uint32)
                known = self.rows
                kernel_rows.enter_rows(known.a, known.b, known.tag, self._slots)
        except MemoryError as error:
            raise MemoryLimitError(
                f"there are more than {self._known} links, which do not fit into this machine's memory: give it more"
            ) from error
        own = self._all
        self._known = kernel_rows.add_rows(
            a, b, first, last, tag, self._slots, self._known, own.a, own.b, own.first, own.last, own.tag
        )

    @property
    def _all(self) -> Rows:
        return Rows(*(column.array for column in self._columns))

    @property
    def rows(self) -> Rows:
        """What there is; to be let go of before more is added."""
        return self._all[: self._known]
