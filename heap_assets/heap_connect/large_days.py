"""A day's rows out of runs that are sorted already: at once, or slice of time by slice of time if they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

DAY_CELLS = 6_000_000
"""Values of a day that is held at once: 100 MB of views of text, and as much again while they are sorted."""
SLICE_CELLS = 2_000_000
"""Values of a slice of a larger day: several are on their way through the writer at any time."""
_LEAST_ROWS = 16_384


@dataclass(frozen=True)
class Run:
    """Rows of one day in one file, sorted by time: `rows(offset, length)` scans some of them, `height` is all."""

    rows: Callable[[int, int], pl.LazyFrame]
    height: int


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
    moments = [rows["time"].to_physical().to_numpy() for rows in narrow]
    del narrow, ids
    edges = np.unique(np.sort(np.concatenate(moments))[::slice_rows])
    places = [np.append(np.searchsorted(times, edges), len(times)) for times in moments]
    del moments
    whole = [run.rows(0, run.height).join(contested.lazy(), on="event_id", how="semi") for run in runs]
    settled = settle(pl.concat(whole).collect(engine="streaming")) if contested.height else None

    def slices() -> Iterator[pl.DataFrame]:
        bounds: list[Any] = pl.Series([*edges, None]).cast(schema["time"]).to_list() if len(edges) else []
        for number, (begin, end) in enumerate(pairwise(bounds)):
            pieces = [
                run.rows(int(at[number]), int(at[number + 1] - at[number]))
                for run, at in zip(runs, places, strict=True)
                if at[number + 1] > at[number]
            ]
            rows = pl.concat(pieces).collect()
            if settled is None:
                yield settle(rows).select(list(schema)).sort(order)
                continue
            alone = settle(rows.join(contested, on="event_id", how="anti"))
            within = pl.col("time") >= begin if end is None else pl.col("time").is_between(begin, end, closed="left")
            yield pl.concat([alone, settled.filter(within)]).select(list(schema)).sort(order)

    return _as_scan(slices, schema)


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
