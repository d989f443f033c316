"""The text of all nodes in one flat array: memory is its bytes, and loops can compare values."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.kernel import I64, PLACE, PLACE_SHIFT, U8, U32, U64
from heap_assets.identity.kernel_text import take_text, text_ends

PADDING: Final = 8
"""Loops read eight bytes at once, so there are as many after the last text."""


class Texts:
    """Values of nodes 0, 1, 2, …, UTF-8, one after the other.

    Attributes
    ----------
    facts
        One row per node and one more; where its text begins is in column PLACE.
    data
        The bytes, and some that are no text.
    """

    def __init__(self, facts: I64, data: U8) -> None:
        self.facts = facts
        self.data = data

    @property
    def size(self) -> int:
        """How many bytes are text."""
        return int(self.facts[-1, PLACE] >> PLACE_SHIFT)

    def take(self, nodes: U32) -> pl.Series:
        """Return the values of some nodes."""
        return text_series(*self.gathered(nodes))

    def gathered(self, nodes: U32) -> tuple[I64, U8]:
        """Return the values of some nodes as offsets and bytes; there is room behind them (PADDING)."""
        begins, offsets = np.empty(nodes.size, np.int64), np.zeros(nodes.size + 1, np.int64)
        text_ends(nodes, self.facts, begins, offsets)
        out = np.empty(int(offsets[-1]) + PADDING, np.uint8)
        take_text(begins, self.data, offsets, out)
        return offsets, out


class StringViews:
    """A column of strings where Polars keeps it: nothing is copied.

    Attributes
    ----------
    views
        rows × 2, the layout of Arrow's Utf8View.
    addresses
        Where the buffers are that long values lie in.
    """

    def __init__(self, values: pl.Series) -> None:
        array = values.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
        _, views, *buffers = array.buffers()
        # keeps the memory alive for as long as addresses into it are used
        self._array = array
        self.views: U64 = np.frombuffer(views, np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
        self.addresses: U64 = np.array([buffer.address for buffer in buffers] or [0], np.uint64)

    @property
    def start(self) -> int:
        """Where the views themselves are: short values lie in them."""
        return int(self.views.ctypes.data)


def text_series(offsets: I64, data: U8, valid: U8 | None = None) -> pl.Series:
    """Make a String series of flat text; where `valid` is 0, null."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_string(), offsets.size - 1, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.Series(array, dtype=pl.String)
