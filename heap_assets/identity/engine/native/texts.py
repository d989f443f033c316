"""The text of all nodes in one flat array: memory is its bytes, and loops can compare values."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.engine.native.kernel import I64, PADDING, PLACE, PLACE_SHIFT, U8, U32
from heap_assets.identity.engine.native.kernel_text import take_text, text_ends


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


def flat(values: pl.Series) -> U8:
    """Return the bytes of a column of strings, one value after the other; nothing is copied from Arrow's buffer."""
    array = values.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)
    return np.frombuffer(data, np.uint8)[ends[array.offset] : ends[array.offset + len(array)]]


def text_series(offsets: I64, data: U8, valid: U8 | None = None) -> pl.Series:
    """Make a String series of flat text; where `valid` is 0, null."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_string(), offsets.size - 1, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.Series(array, dtype=pl.String)
