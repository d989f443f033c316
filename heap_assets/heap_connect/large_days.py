"""A day that is too large to sort in memory, given out in slices of time, each sorted, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import polars as pl
from polars.io.plugins import register_io_source

SLICE_ROWS = 65_536


def in_slices(
    rows: pl.LazyFrame,
    schema: Mapping[str, pl.DataType],
    order: Sequence[str],
    settle: Callable[[pl.DataFrame], pl.DataFrame],
    slice_rows: int = SLICE_ROWS,
) -> pl.LazyFrame:
    """Return rows settled and sorted by `order`, whose first column is `time`, holding one slice at a time.

    Parameters
    ----------
    rows
        Columns of `schema` and whatever `settle` needs; read once narrowly, and once for each slice by its time.
    settle
        Decides among rows that share an event_id; only those are held all at once.
    """
    narrow = rows.select("event_id", "time").collect(engine="streaming")
    contested = narrow.filter(pl.col("event_id").is_duplicated()).select("event_id").unique()
    times = narrow["time"].sort()
    edges = times.gather_every(slice_rows).unique().sort().to_list()
    del narrow, times
    settled = rows.join(contested.lazy(), on="event_id", how="semi").collect(engine="streaming")
    settled = (settle(settled) if settled.height else settled).select(list(schema))

    def slices() -> Iterator[pl.DataFrame]:
        for begin, end in pairwise([*edges, None]):
            within = pl.col("time") >= begin if end is None else pl.col("time").is_between(begin, end, closed="left")
            alone = rows.filter(within).join(contested.lazy(), on="event_id", how="anti").select(list(schema))
            found = pl.concat([alone.collect(engine="streaming"), settled.filter(within)])
            yield found.sort(order)

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        for piece in slices():
            rows_now = piece if left is None else piece.head(left)
            left = None if left is None else left - rows_now.height
            if predicate is not None:
                rows_now = rows_now.filter(predicate)
            yield rows_now if with_columns is None else rows_now.select(with_columns)
            if left == 0:
                return

    return register_io_source(source, schema=pl.Schema(dict(schema)))
