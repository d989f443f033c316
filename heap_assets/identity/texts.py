"""The text of all nodes in two flat arrays, so that memory is bytes plus eight per node and loops can compare values."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.kernel import I64, U8, U32
from heap_assets.identity.kernel_text import gather_text, text_size


class Texts:
    """Values of nodes 0, 1, 2, …: node n is `data[offsets[n]:offsets[n + 1]]`, UTF-8."""

    def __init__(self) -> None:
        self._data: U8 = np.empty(1 << 16, np.uint8)
        self._offsets: I64 = np.zeros(1 << 12, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def data(self) -> U8:
        return self._data

    @property
    def offsets(self) -> I64:
        """Where each value begins, and where the last one ends."""
        return self._offsets[: self._count + 1]

    def append(self, values: pl.Series) -> None:
        """Add values as the next nodes."""
        if values.is_empty():
            return
        array = values.rechunk().to_arrow()
        _, offset_buffer, data_buffer = array.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
        begin, end = int(offsets[0]), int(offsets[-1])
        used = int(self._offsets[self._count])
        self._data = _grown(self._data, used + end - begin)
        self._offsets = _grown(self._offsets, self._count + 1 + len(array))
        if end > begin:
            self._data[used : used + end - begin] = np.frombuffer(data_buffer, np.uint8)[begin:end]
        np.add(offsets[1:], used - begin, out=self._offsets[self._count + 1 : self._count + 1 + len(array)])
        self._count += len(array)

    def take(self, nodes: U32) -> pl.Series:
        """Return the values of some nodes."""
        out_offsets = np.zeros(nodes.size + 1, np.int64)
        out = np.empty(text_size(nodes, self.offsets), np.uint8)
        gather_text(nodes, self.offsets, self._data, out_offsets, out)
        return text_series(out_offsets, out)


def text_series(offsets: I64, data: U8, valid: U8 | None = None) -> pl.Series:
    """Make a String series of flat text; where `valid` is 0, null."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_string(), offsets.size - 1, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.Series(array, dtype=pl.String)


def _grown(array: np.ndarray[Any, Any], needed: int) -> np.ndarray[Any, Any]:
    if needed > array.size:
        array.resize(max(needed, array.size * 2), refcheck=False)
    return array
