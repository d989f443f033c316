"""Rows as the Parquet file that a warehouse loads: what is written of each column, and how many values do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from heap_assets.sources.warehouse.empty_columns import is_untyped
from heap_assets.sources.warehouse.publish import Publication

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""Days from 1970 to the years 1 and 9999."""
_UNITS_A_DAY = {"ms": 86_400 * 10**3, "us": 86_400 * 10**6}


@dataclass(frozen=True)
class FileColumn:
    """How a column is loaded.

    Attributes
    ----------
    kind
        Its type in the warehouse.
    value
        The expression that is written to the file.
    lost
        Number of values of a row that are dropped or truncated; None if every value of the type fits.
    """

    kind: str
    value: pl.Expr
    lost: pl.Expr | None = None


C = TypeVar("C", bound=FileColumn)


def file_columns(
    publication: Publication, rows: pl.LazyFrame, column_of: Callable[[str, pl.DataType, Publication], C]
) -> dict[str, C]:
    """Return how each column is loaded; a column without a type and without values is left out until it has one."""
    return {
        name: column_of(name, dtype, publication)
        for name, dtype in rows.collect_schema().items()
        if not is_untyped(dtype)
    }


def sink_columns(
    rows: pl.LazyFrame, columns: Mapping[str, FileColumn], path: Path, spelled: Callable[[str], str] = str
) -> dict[str, int]:
    """Write rows as a Parquet file; returns the number of values by column that do not fit.

    `spelled`: returns the name that a column has in the file.
    """
    counts = [
        column.lost.sum().cast(pl.Int64).alias(name) for name, column in columns.items() if column.lost is not None
    ]
    lost = rows.select(counts).collect(engine="streaming").row(0, named=True) if counts else {}
    values = [column.value.alias(spelled(name)) for name, column in columns.items()]
    rows.select(values).sink_parquet(path, engine="streaming")
    return {name: count for name, count in lost.items() if count}


def beyond_years(value: pl.Expr, dtype: pl.Date | pl.Datetime) -> pl.Expr:
    """Whether a date or a time (to the microsecond at most) is before the year 1 or after 9999."""
    if isinstance(dtype, pl.Date):
        return ~value.to_physical().is_between(_FIRST_DAY, _LAST_DAY)
    day = _UNITS_A_DAY[dtype.time_unit]
    return ~value.to_physical().is_between(_FIRST_DAY * day, (_LAST_DAY + 1) * day - 1)
