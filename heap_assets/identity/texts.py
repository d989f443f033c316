"""The text of all nodes in two flat arrays: memory is its bytes and eight per node, and loops can compare values."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.kernel import I64, U8, U32
from heap_assets.identity.kernel_text import gather_text, text_size

_BACKLOG: Final = 4


class Texts:
    """Values of nodes 0, 1, 2, …: node n is `data[offsets[n]:offsets[n + 1]]`, UTF-8."""

    def __init__(self) -> None:
        self.data: U8 = np.empty(0, np.uint8)
        self.offsets: I64 = np.zeros(1, np.int64)
        self._chunks: deque[tuple[I64, U8]] = deque()
        self._worker = ThreadPoolExecutor(1)
        self._copies: deque[Future[tuple[I64, U8]]] = deque()

    @classmethod
    def of(cls, offsets: I64, data: U8) -> Texts:
        """Wrap text that is laid out already."""
        texts = cls()
        texts.offsets, texts.data = offsets, data
        return texts

    def append(self, values: pl.Series, rows: U32) -> None:
        """Add some rows of a column as the next nodes; the copying is done in the background."""
        self._copies.append(self._worker.submit(_copied, values, rows))
        if len(self._copies) > _BACKLOG:
            self._chunks.append(self._copies.popleft().result())

    def finish(self) -> None:
        """Lay everything out in one piece."""
        self._chunks.extend(copy.result() for copy in self._copies)
        self._copies.clear()
        self._worker.shutdown()
        self.offsets = np.zeros(sum(offsets.size - 1 for offsets, _ in self._chunks) + 1, np.int64)
        self.data = np.empty(sum(data.size for _, data in self._chunks), np.uint8)
        node, used = 0, 0
        while self._chunks:
            offsets, data = self._chunks.popleft()
            np.add(offsets[1:], used, out=self.offsets[node + 1 : node + offsets.size])
            self.data[used : used + data.size] = data
            node, used = node + offsets.size - 1, used + data.size

    def take(self, nodes: U32) -> pl.Series:
        """Return the values of some nodes."""
        return text_series(*self.gathered(nodes))

    def gathered(self, nodes: U32) -> tuple[I64, U8]:
        """Return the values of some nodes as offsets and bytes."""
        return _gathered(nodes, self.offsets, self.data)


def _copied(values: pl.Series, rows: U32) -> tuple[I64, U8]:
    array = values.to_arrow()
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    return _gathered(rows, offsets, data)


def _gathered(rows: U32, offsets: I64, data: U8) -> tuple[I64, U8]:
    out_offsets = np.zeros(rows.size + 1, np.int64)
    out = np.empty(text_size(rows, offsets), np.uint8)
    gather_text(rows, offsets, data, out_offsets, out)
    return out_offsets, out


def text_series(offsets: I64, data: U8, valid: U8 | None = None) -> pl.Series:
    """Make a String series of flat text; where `valid` is 0, null."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_string(), offsets.size - 1, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.Series(array, dtype=pl.String)
