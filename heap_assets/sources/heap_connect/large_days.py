"""A day's rows out of runs that are sorted already: at once, or slice of time by slice of time if they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from heap_assets.sources.heap_connect.staging import GROUP_ROWS

DAY_CELLS = 6_000_000
"""Values of a day that is held at once: 100 MB of views of text, and as much again while they are sorted."""
SLICE_CELLS = 4_000_000
"""Values of a slice of a larger day: several are on their way through the writer at any time."""
_LEAST_ROWS = 16_384


@dataclass(frozen=True)
class Run:
    """Rows of one day in one file, sorted by time.

    Attributes
    ----------
    rows
        Scans some of them, from an offset, so many.
    height
        Of all.
    begin
        Row of the file at which they begin.
    """

    rows: Callable[[int, int], pl.LazyFrame]
    height: int
    begin: int = 0


def day_rows(
    runs: Sequence[Run],
    schema: Mapping[str, pl.DataType],
    order: Sequence[str],
    settle: Callable[[pl.DataFrame], pl.DataFrame],
    slice_rows: int | None = None,
) -> pl.LazyFrame:
    """Return a day's rows settled and sorted by `order`, whose first column is `time`.

    Parameters
    ----------
    runs
        Rows with the columns of `schema` and whatever `settle` needs.
    settle
        Decides which rows stand; among rows of several event_ids it decides as for each alone.
    slice_rows
        So many rows are held at once; by default as many as :data:`DAY_CELLS` and :data:`SLICE_CELLS` allow for.
    """
    if sum(run.height for run in runs) > (slice_rows or max(_LEAST_ROWS, DAY_CELLS // len(schema))):
        size = slice_rows or max(_LEAST_ROWS, SLICE_CELLS // len(schema))
        return in_slices(runs, schema, order, settle, size)
    rows = pl.concat([run.rows(0, run.height) for run in runs]).collect()
    settled = settle(rows)
    is_sorted = len(runs) == 1 and settled is rows
    found = settled.select(list(schema))
    return (found if is_sorted else found.sort(order)).lazy()


def in_slices(
    runs: Sequence[Run],
    schema: Mapping[str, pl.DataType],
    order: Sequence[str],
    settle: Callable[[pl.DataFrame], pl.DataFrame],
    slice_rows: int,
) -> pl.LazyFrame:
    """Do what :func:`day_rows` does, holding one slice at a time; every run is read narrowly first."""
    narrow = [run.rows(0, run.height).select("event_id", "time").collect() for run in runs]
    ids = pl.concat([rows["event_id"] for rows in narrow])
    contested = ids.filter(ids.is_duplicated()).unique().to_frame()
    edges = np.unique(np.sort(np.concatenate([rows["time"].to_physical().to_numpy() for rows in narrow]))[::slice_rows])
    del narrow, ids
    whole = [run.rows(0, run.height).join(contested.lazy(), on="event_id", how="semi") for run in runs]
    settled = settle(pl.concat(whole).collect(engine="streaming")) if contested.height else None

    def slices() -> Iterator[pl.DataFrame]:
        bounds: list[Any] = pl.Series([*edges, None]).cast(schema["time"]).to_list() if len(edges) else []
        readers = [_Reader(run) for run in runs]
        for begin, end in pairwise(bounds):
            rows = pl.concat(_until(readers, end))
            if settled is None:
                yield settle(rows).select(list(schema)).sort(order)
                continue
            alone = settle(rows.join(contested, on="event_id", how="anti"))
            within = pl.col("time") >= begin if end is None else pl.col("time").is_between(begin, end, closed="left")
            yield pl.concat([alone, settled.filter(within)]).select(list(schema)).sort(order)

    return _as_scan(slices, schema)


class _Reader:
    """Reads a run from its begin to its end, each row group once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._at = 0
        self._waiting: pl.DataFrame | None = None

    def lacks(self, end: datetime | None) -> bool:
        """Say whether rows before `end` may not have been read yet."""
        if self._at == self._run.height:
            return False
        if end is None or self._waiting is None or self._waiting.is_empty():
            return True
        return bool(self._waiting["time"][-1] < end)

    def ahead(self) -> pl.LazyFrame:
        """Scan what comes next, up to the end of its row group."""
        length = min(GROUP_ROWS - (self._run.begin + self._at) % GROUP_ROWS, self._run.height - self._at)
        offset, self._at = self._at, self._at + length
        return self._run.rows(offset, length)

    def add(self, rows: pl.DataFrame) -> None:
        self._waiting = rows if self._waiting is None else pl.concat([self._waiting, rows])

    def take(self, end: datetime | None) -> pl.DataFrame:
        """Return, once, the rows before `end`."""
        assert self._waiting is not None
        count = self._waiting.height if end is None else int(self._waiting["time"].search_sorted(end, "left"))
        taken, self._waiting = self._waiting.head(count), self._waiting.slice(count)
        return taken


def _until(readers: Sequence[_Reader], end: datetime | None) -> list[pl.DataFrame]:
    while lacking := [reader for reader in readers if reader.lacks(end)]:
        for reader, rows in zip(lacking, pl.collect_all([reader.ahead() for reader in lacking]), strict=True):
            reader.add(rows)
    return [reader.take(end) for reader in readers]


def _as_scan(pieces: Callable[[], Iterator[pl.DataFrame]], schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        for piece in pieces():
            rows = piece if left is None else piece.head(left)
            left = None if left is None else left - rows.height
            if predicate is not None:
                rows = rows.filter(predicate)
            yield rows if with_columns is None else rows.select(with_columns)
            if left == 0:
                return

    return register_io_source(source, schema=pl.Schema(dict(schema)))
