"""A day's rows merged from sorted runs: at once, or streamed in slices of time if there are many."""

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
"""Values of a day that is held in memory: 100 MB of views of text, and as much again while they are sorted."""
SLICE_CELLS = 4_000_000
"""Values of a slice of a larger day: the writer holds several slices at any time."""
_LEAST_ROWS = 16_384


@dataclass(frozen=True)
class Run:
    """Rows of one day in one file, sorted by time.

    Attributes
    ----------
    rows
        Scans rows, given an offset and a length.
    height
        Number of rows.
    begin
        Offset of the first in its file.
    """

    rows: Callable[[int, int], pl.LazyFrame]
    height: int
    begin: int = 0


def day_rows(
    runs: Sequence[Run],
    schema: Mapping[str, pl.DataType],
    order: Sequence[str],
    dedupe: Callable[[pl.DataFrame], pl.DataFrame],
    slice_rows: int | None = None,
) -> pl.LazyFrame:
    """Return a day's rows deduplicated and sorted by `order`, whose first column is `time`.

    Parameters
    ----------
    runs
        Rows with the columns of `schema` and those that `dedupe` needs.
    dedupe
        Drops replaced rows; the result for one event_id does not depend on rows of others.
    slice_rows
        Number of rows held at once; by default as many as :data:`DAY_CELLS` and :data:`SLICE_CELLS` allow.
    """
    if sum(run.height for run in runs) > (slice_rows or max(_LEAST_ROWS, DAY_CELLS // len(schema))):
        size = slice_rows or max(_LEAST_ROWS, SLICE_CELLS // len(schema))
        return _in_slices(runs, schema, order, dedupe, size)
    rows = pl.concat([run.rows(0, run.height) for run in runs]).collect()
    deduped = dedupe(rows)
    selected = deduped.select(list(schema))
    is_sorted = len(runs) == 1 and deduped is rows
    return (selected if is_sorted else selected.sort(order)).lazy()


def _in_slices(
    runs: Sequence[Run],
    schema: Mapping[str, pl.DataType],
    order: Sequence[str],
    dedupe: Callable[[pl.DataFrame], pl.DataFrame],
    slice_rows: int,
) -> pl.LazyFrame:
    """Do the same, holding one slice at a time; of every run, event_id and time are read first."""
    narrow = [run.rows(0, run.height).select("event_id", "time").collect() for run in runs]
    ids = pl.concat([rows["event_id"] for rows in narrow])
    contested = ids.filter(ids.is_duplicated()).unique().to_frame()
    edges = np.unique(np.sort(np.concatenate([rows["time"].to_physical().to_numpy() for rows in narrow]))[::slice_rows])
    del narrow, ids
    contested_rows = [run.rows(0, run.height).join(contested.lazy(), on="event_id", how="semi") for run in runs]
    winners = dedupe(pl.concat(contested_rows).collect(engine="streaming")) if contested.height else None

    def slices() -> Iterator[pl.DataFrame]:
        bounds: list[Any] = pl.Series([*edges, None]).cast(schema["time"]).to_list() if len(edges) else []
        readers = [_Reader(run) for run in runs]
        for begin, end in pairwise(bounds):
            rows = pl.concat(_until(readers, end))
            if winners is None:
                yield dedupe(rows).select(list(schema)).sort(order)
                continue
            uncontested = dedupe(rows.join(contested, on="event_id", how="anti"))
            within = pl.col("time") >= begin if end is None else pl.col("time").is_between(begin, end, closed="left")
            yield pl.concat([uncontested, winners.filter(within)]).select(list(schema)).sort(order)

    return _as_scan(slices, schema)


class _Reader:
    """Reads a run from its begin to its end, each row group once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._at = 0
        self._pending: pl.DataFrame | None = None

    def lacks(self, end: datetime | None) -> bool:
        """Return whether rows before `end` may not have been read yet."""
        if self._at == self._run.height:
            return False
        if end is None or self._pending is None or self._pending.is_empty():
            return True
        return bool(self._pending["time"][-1] < end)

    def next_group(self) -> pl.LazyFrame:
        """Scan the next rows, up to the end of their row group."""
        length = min(GROUP_ROWS - (self._run.begin + self._at) % GROUP_ROWS, self._run.height - self._at)
        offset, self._at = self._at, self._at + length
        return self._run.rows(offset, length)

    def add(self, rows: pl.DataFrame) -> None:
        self._pending = rows if self._pending is None else pl.concat([self._pending, rows])

    def take(self, end: datetime | None) -> pl.DataFrame:
        """Return, once, the rows before `end`."""
        assert self._pending is not None
        count = self._pending.height if end is None else int(self._pending["time"].search_sorted(end, "left"))
        before, self._pending = self._pending.head(count), self._pending.slice(count)
        return before


def _until(readers: Sequence[_Reader], end: datetime | None) -> list[pl.DataFrame]:
    while lacking := [reader for reader in readers if reader.lacks(end)]:
        for reader, rows in zip(lacking, pl.collect_all([reader.next_group() for reader in lacking]), strict=True):
            reader.add(rows)
    return [reader.take(end) for reader in readers]


def _as_scan(pieces: Callable[[], Iterator[pl.DataFrame]], schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        remaining = n_rows
        for piece in pieces():
            rows = piece if remaining is None else piece.head(remaining)
            remaining = None if remaining is None else remaining - rows.height
            if predicate is not None:
                rows = rows.filter(predicate)
            yield rows if with_columns is None else rows.select(with_columns)
            if remaining == 0:
                return

    return register_io_source(source, schema=pl.Schema(dict(schema)))
