"""Landed rows on their way into a Parquet part: gathered, sorted, written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl

from heap_assets.sources.heap_connect.merging import fitted

ORDER = ("time", "event_id", "user_id")

_BYTES_PER_VIEW = 16  # of each text, which Polars does not count
GROUP_ROWS = 8_192  # a slice of a day holds a group of each of many parts


class PendingRows:
    """Rows of one table that have not been written yet."""

    def __init__(self) -> None:
        self._batches: list[pl.DataFrame] = []
        self.height = 0
        self.nbytes = 0

    def add(self, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        self._batches.append(rows)
        self.height += rows.height
        views = sum(dtype == pl.String for dtype in rows.dtypes) * _BYTES_PER_VIEW * rows.height
        self.nbytes += int(rows.estimated_size()) + views

    def write(self, path: Path, wanted: Mapping[str, pl.DataType], *, by_time: bool) -> dict[date, int]:
        """Write all rows in the columns of `wanted`, sorted if `by_time`, and forget them.

        Returns
        -------
        dict
            Rows of each day; empty if not `by_time`.
        """
        rows = pl.concat([_fitted(batch, wanted) for batch in self._batches])
        self._batches, self.height, self.nbytes = [], 0, 0
        rows = rows.sort(ORDER) if by_time else rows
        # Rows are found by their place: nobody asks for statistics.
        rows.write_parquet(path, compression="lz4", statistics=False, row_group_size=GROUP_ROWS)
        return day_counts(rows["time"]) if by_time else {}


def day_counts(times: pl.Series) -> dict[date, int]:
    """Count rows by UTC day, in the order of days."""
    return dict(times.dt.date().value_counts().sort(times.name).iter_rows())


def _fitted(rows: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    # Beside the rows themselves: a select of literals alone would be one row high.
    fitting = [fitted(name, rows.schema.get(name), dtype) for name, dtype in wanted.items()]
    return rows.with_columns(fitting).select(list(wanted))
