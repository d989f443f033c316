"""Landed rows on their way into a Parquet part: held as numbers of their texts, sorted column by column."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.heap_connect.merging import fitted
from heap_assets.heap_connect.text_kernel import place, spell
from heap_assets.heap_connect.text_table import Batch, TextTable

DAY = "_day"
ORDER = ("time", "event_id", "user_id")

_BYTES_PER_CELL = 16  # of a string's view, which Polars does not count
_COLUMNS_AT_ONCE = 4
_FEW_TEXTS = 4_096  # a column of so few is written from its numbers
_GROUP_ROWS = 8_192  # a slice of a day is read out of many parts: larger groups would be decoded again and again
_ARROW_SCHEMA = "ARROW:schema"


class PendingRows:
    """Batches of one table that have not been written yet."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._tables: dict[int, TextTable] = {}
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        if batch.rows.is_empty():
            return
        self._batches.append(batch)
        if batch.table is not None:
            self._tables[id(batch.table)] = batch.table
        views = sum(dtype == pl.String for dtype in batch.rows.dtypes) * _BYTES_PER_CELL * batch.rows.height
        self._bytes += int(batch.rows.estimated_size()) + views

    @property
    def nbytes(self) -> int:
        return self._bytes + sum(table.nbytes for table in self._tables.values())

    def take(self, wanted: Mapping[str, pl.DataType], *, by_time: bool) -> pl.DataFrame:
        """Return all rows in the columns of `wanted`, sorted if `by_time`, and forget them."""
        batches, spelling = self._batches, _Spelling(list(self._tables.values()))
        self._batches, self._tables, self._bytes = [], {}, 0
        if not batches:
            return pl.DataFrame(schema=dict(wanted))
        order = _order_of(batches, by_time=by_time)
        heights = [batch.rows.height for batch in batches]
        columns: list[pl.Series] = []

        def column(name: str) -> pl.Series:
            there = [batch for batch in batches if name in batch.rows.columns]
            if there and all(name in batch.numbered for batch in there):
                return spelling.column(name, batches, heights, order)
            pieces = [_fitted(b, h, name, wanted[name]) for b, h in zip(batches, heights, strict=True)]
            whole = pl.concat(pieces, rechunk=True)
            return whole.gather(order.by_rank) if by_time else whole

        with ThreadPoolExecutor(_COLUMNS_AT_ONCE) as pool:
            for names in _in_groups(wanted, _COLUMNS_AT_ONCE):
                columns += pool.map(column, names)
                # What is done with is let go of: rows are never held twice.
                batches = [replace(batch, rows=batch.rows.drop(names, strict=False)) for batch in batches]
        return pl.DataFrame(columns)


def _in_groups(names: Mapping[str, object], size: int) -> Iterator[list[str]]:
    listed = list(names)
    return (listed[i : i + size] for i in range(0, len(listed), size))


def write_part(path: Path, rows: pl.DataFrame) -> None:
    """Write a part; columns of few texts go in as numbers and are plain text for whoever reads them."""
    plain = {n: pl.String() if isinstance(t, pl.Enum) else t for n, t in rows.schema.items()}
    rows.write_parquet(
        path,
        compression="lz4",
        statistics=False,  # rows are found by their place
        row_group_size=_GROUP_ROWS,
        metadata={_ARROW_SCHEMA: _arrow_schema(plain)},
    )


def _arrow_schema(schema: Mapping[str, pl.DataType]) -> str:
    """Spell a schema as Parquet files carry it (base64 of an Arrow message): what readers take columns for."""
    arrow = pl.DataFrame(schema=dict(schema)).to_arrow(compat_level=pl.CompatLevel.newest()).schema
    return base64.b64encode(arrow.serialize().to_pybytes()).decode()


class _Order:
    """Which row comes where: `by_rank[i]` is the row that comes i-th, `rank[r]` the place of row r."""

    def __init__(self, by_rank: pl.Series) -> None:
        self.by_rank = by_rank
        self.rank = np.empty(len(by_rank), dtype=np.int64)
        self.rank[by_rank.to_numpy()] = np.arange(len(by_rank))


def _order_of(batches: Sequence[Batch], *, by_time: bool) -> _Order:
    if not by_time:
        return _Order(pl.int_range(sum(batch.rows.height for batch in batches), dtype=pl.UInt32, eager=True))
    keys = pl.concat([batch.rows.select(ORDER) for batch in batches])
    return _Order(keys.select(pl.arg_sort_by(ORDER)).to_series())


class _Spelling:
    """The texts of several tables in one list; number n of a table is at `begins[table] + n`."""

    def __init__(self, tables: Sequence[TextTable]) -> None:
        texts = [table.texts() for table in tables]
        ends = np.cumsum([0, *(len(found) for found in texts)])
        self.begins = {id(table): int(end) for table, end in zip(tables, ends, strict=False)}
        self.texts = pl.concat([*texts, pl.Series([None], dtype=pl.String)], rechunk=True)

    def column(self, name: str, batches: Sequence[Batch], heights: Sequence[int], order: _Order) -> pl.Series:
        """Return a text column in order: as Enum if it says few things, as String if many."""
        placed = np.full(len(order.by_rank), len(self.texts) - 1, dtype=np.uint32)
        used = np.zeros(len(self.texts), dtype=np.bool_)
        at = 0
        for batch, height in zip(batches, heights, strict=True):
            ranks = order.rank[at : at + height]
            if name in batch.rows.columns:
                place(batch.rows[name].to_numpy(), self.begins[id(batch.table)], ranks, placed, used)
            else:
                used[placed[ranks]] = True
            at += height
        found = np.flatnonzero(used)
        if len(found) > _FEW_TEXTS:
            return self.texts.gather(placed).alias(name)
        used_texts = self.texts.gather(found)
        categories = used_texts.drop_nulls().unique().sort()
        codes = used_texts.cast(pl.Enum(categories)).to_physical().cast(pl.UInt32)
        names = np.zeros(len(self.texts), dtype=np.uint32)
        names[found] = (codes + 1).fill_null(0).to_numpy()
        spelled = np.empty(len(placed), dtype=np.uint32)
        bits = np.zeros((len(placed) + 7) // 8, dtype=np.uint8)
        spell(placed, names, spelled, bits)
        numbers = pa.Array.from_buffers(pa.uint32(), len(placed), [pa.py_buffer(bits), pa.py_buffer(spelled)])
        column = pl.from_arrow(numbers)
        assert isinstance(column, pl.Series)
        return column.cat.to(pl.Enum(categories)).alias(name)


def _fitted(batch: Batch, height: int, name: str, dtype: pl.DataType) -> pl.Series:
    if name not in batch.rows.columns:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, height)
    column = batch.spelled(batch.rows.select(name))
    return column.select(fitted(name, column.schema[name], dtype)).to_series()
