"""The rows of a query, some at a time, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl
from polars.io.plugins import register_io_source

_READ = 2
"""So many batches are read at once from a file, whose groups of rows are unpacked anew each time."""
_OFFSET = 7919
_SLICED = f"SLICE: Positive {{ offset: {_OFFSET}, len: 1 }}"
_GIVEN_ROWS = 4096
"""Polars holds many of the frames that a source gives; small ones are put together again."""


def count_of(frame: pl.LazyFrame) -> int:
    """Return the number of rows of a query."""
    return int(frame.select(pl.len()).collect(engine="streaming").item())


def is_of_one_file(frame: pl.LazyFrame) -> bool:
    """Whether each row is made of one row of one Parquet file: such rows are counted without being read.

    If the plan of such a query is written in another way one day, its rows are read as those of any other.
    """
    plan = frame.slice(_OFFSET, 1).explain()
    return _SLICED in plan and plan.count("SCAN [") == 1


def batches(frame: pl.LazyFrame, rows: int, count: int | None = None) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in their order, so many at a time; `count`: of all of them, if it is known.

    A file is read by pieces: of one that is streamed, Polars holds all groups of rows that it has read ahead.
    """
    if not is_of_one_file(frame):
        yield from frame.collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")
        return
    for start in range(0, count_of(frame) if count is None else count, _READ * rows):
        yield from frame.slice(start, _READ * rows).collect().iter_slices(rows)


def source_of(
    frames: Callable[[Sequence[str], pl.Expr | None], Iterator[pl.DataFrame]], schema: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    """Return the rows of a function of the columns that are wanted and of a condition; it is called at each reading."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, most: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        del size
        for frame in frames(columns if columns is not None else [*schema], predicate):
            rows = frame if most is None else frame.head(most)
            most = None if most is None else most - len(rows)
            yield from rows.iter_slices(_GIVEN_ROWS)
            if most == 0:
                break

    return register_io_source(source, schema=pl.Schema(schema))
