"""Columns to be published that have no type or no value: they do not alter the target table."""

from __future__ import annotations

from typing import Any

import polars as pl


def is_untyped(dtype: Any) -> bool:
    """Whether a column, the elements of its lists or all its fields have no type since no row has a value."""
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return all(is_untyped(child.dtype) for child in dtype.fields)
    return dtype == pl.Null() or (isinstance(dtype, pl.List) and is_untyped(dtype.inner))


class EmptyColumns:
    """Tells which columns have no value at all; queries the rows only for the columns it is called with."""

    def __init__(self, rows: pl.LazyFrame) -> None:
        self._rows = rows
        self.names: set[str] = set()

    def __call__(self, name: str) -> bool:
        column, dtype = pl.col(name), self._rows.collect_schema()[name]
        value = column.list.drop_nulls().list.len() > 0 if isinstance(dtype, pl.List) else column.is_not_null()
        if not self._rows.select(value.any()).collect(engine="streaming").item():
            self.names.add(name)
        return name in self.names
