"""Landed rows on their way into a Parquet part: held as numbers of their texts, sorted column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from heap_assets.heap_connect.merging import fitted
from heap_assets.heap_connect.parquet_columns import Pool, TextColumn
from heap_assets.heap_connect.parquet_file import FOR_LATER, edges_of, write_file
from heap_assets.heap_connect.parquet_kernel import place
from heap_assets.heap_connect.text_table import Batch, TextTable
from heap_assets.parquet import can_hold

DAY = "_day"
ORDER = ("time", "event_id", "user_id")

_BYTES_PER_CELL = 16  # of a string's view, which Polars does not count
_GROUP_ROWS = 8_192  # a slice of a day is read out of many parts: larger groups would be decoded again and again
_CODED_GROUP_ROWS = 65_536


class PendingRows:
    """Batches of one table that have not been written yet."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._tables: dict[int, TextTable] = {}
        self._bytes = 0
        self._pool = Pool()

    def add(self, batch: Batch) -> None:
        if batch.rows.is_empty():
            return
        self._batches.append(batch)
        if batch.table is not None:
            self._tables[id(batch.table)] = batch.table
        views = sum(dtype == pl.String for dtype in batch.rows.dtypes) * _BYTES_PER_CELL * batch.rows.height
        self._bytes += int(batch.rows.estimated_size()) + views + (batch.texts.nbytes if batch.texts else 0)

    @property
    def height(self) -> int:
        return sum(batch.rows.height for batch in self._batches)

    @property
    def nbytes(self) -> int:
        return self._bytes + sum(table.nbytes for table in self._tables.values())

    def write(self, path: Path, wanted: Mapping[str, pl.DataType], *, by_time: bool) -> dict[date, int]:
        """Write all rows in the columns of `wanted`, sorted if `by_time`, and forget them.

        A row group then holds rows of one day.

        Returns
        -------
        dict
            Rows of each day; empty if not `by_time`.
        """
        batches, tables = self._batches, list(self._tables.values())
        self._batches, self._tables, self._bytes = [], {}, 0
        days = _days(batches) if by_time else {}
        if not can_hold(wanted.values()):
            _write_plainly(path, batches, wanted, by_time=by_time)
            return days
        self._pool.take(tables)
        rows = _Rows(
            batches,
            self._pool,
            order_of(pl.concat([batch.rows.select(ORDER) for batch in batches])) if by_time else None,
        )
        heights = list(days.values()) or [rows.height]
        write_file(
            path, wanted, lambda name: rows.column(name, wanted[name]), edges_of(heights, _CODED_GROUP_ROWS), FOR_LATER
        )
        return days


def _days(batches: Sequence[Batch]) -> dict[date, int]:
    found = pl.concat([batch.rows[DAY] for batch in batches])
    return dict(found.value_counts().sort(DAY).iter_rows())


def order_of(keys: pl.DataFrame) -> pl.Series:
    """Return which row comes first, second, and so on, by :data:`ORDER`."""
    times = keys["time"].to_physical().to_numpy()
    order = np.argsort(times)
    ordered = times[order]
    if (ordered[1:] == ordered[:-1]).any():
        return keys.select(pl.arg_sort_by(ORDER)).to_series()
    return pl.Series(order.astype(np.uint32))


class _Rows:
    """Rows of several batches as columns of one, in their order."""

    def __init__(self, batches: Sequence[Batch], pool: Pool, by_rank: pl.Series | None) -> None:
        self.batches = batches
        self.pool = pool
        self.by_rank = by_rank
        self.heights = [batch.rows.height for batch in batches]
        self.height = sum(self.heights)
        self.ranks = ranks_of(by_rank, self.height)

    def column(self, name: str, dtype: pl.DataType) -> TextColumn | pl.Series:
        there = [batch for batch in self.batches if name in batch.rows.columns]
        if there and all(name in batch.numbered for batch in there):
            return self._numbered(name)
        if there and all(batch.is_text(name) for batch in there):
            return self._listed(name)
        pieces = [_fitted(b, h, name, dtype) for b, h in zip(self.batches, self.heights, strict=True)]
        whole = pl.concat(pieces, rechunk=True)
        whole = whole if self.by_rank is None else whole.gather(self.by_rank)
        return TextColumn.of(whole) if dtype == pl.String() else whole

    def _numbered(self, name: str) -> TextColumn:
        placed = np.zeros(self.height, dtype=np.uint32)
        at = 0
        for batch, height in zip(self.batches, self.heights, strict=True):
            if batch.table is not None and name in batch.rows.columns:
                names = self.pool.numbers(batch.table)
                place(batch.rows[name].to_numpy(), names, self.ranks[at : at + height], placed)
            at += height
        return TextColumn(placed, self.pool.starts, self.pool.lengths, self.pool.holders)

    def _listed(self, name: str) -> TextColumn:
        """Return a column that says few things twice: each row's text, wherever it is."""
        starts, lengths = np.zeros(self.height + 1, dtype=np.int64), np.zeros(self.height + 1, dtype=np.uint32)
        placed = np.zeros(self.height, dtype=np.uint32)
        holders = []
        at = 0
        for batch, height in zip(self.batches, self.heights, strict=True):
            texts = batch.list_of(name)
            if texts is not None:
                numbers = batch.rows[name].to_numpy().astype(np.int64)
                ends, arena = texts.snapshot()
                begins = ends[np.maximum(numbers, 1) - 1]
                starts[at + 1 : at + 1 + height] = begins + arena.ctypes.data
                lengths[at + 1 : at + 1 + height] = ends[numbers] - begins
                placed[self.ranks[at : at + height]] = np.where(numbers > 0, np.arange(at + 1, at + 1 + height), 0)
                holders.append(arena)
            at += height
        return TextColumn(placed, starts, lengths, holders, repeats=False)


def ranks_of(by_rank: pl.Series | None, height: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Turn "which row comes i-th" into "where row r goes"."""
    places = np.arange(height, dtype=np.uint32)
    if by_rank is None:
        return places
    ranks = np.empty_like(places)
    ranks[by_rank.to_numpy()] = places
    return ranks


def _write_plainly(path: Path, batches: Sequence[Batch], wanted: Mapping[str, pl.DataType], *, by_time: bool) -> None:
    pieces = [
        pl.DataFrame([_fitted(batch, batch.rows.height, name, dtype) for name, dtype in wanted.items()])
        for batch in batches
    ]
    rows = pl.concat(pieces, rechunk=False)
    rows = rows.sort(ORDER) if by_time else rows
    # rows are found by their place: nobody asks for statistics
    rows.write_parquet(path, compression="lz4", statistics=False, row_group_size=_GROUP_ROWS)


def _fitted(batch: Batch, height: int, name: str, dtype: pl.DataType) -> pl.Series:
    if name not in batch.rows.columns:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, height)
    column = batch.spelled(batch.rows.select(name))
    return column.select(fitted(name, column.schema[name], dtype)).to_series()
