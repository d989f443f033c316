"""Columns of rows about to be published that have no type, or no value: they change no table."""

from __future__ import annotations

from typing import Any

import polars as pl


def is_untyped(dtype: Any) -> bool:
    """Whether a column, the elements of its lists or all its fields have no type since no row has a value."""
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return all(is_untyped(child.dtype) for child in dtype.fields)
    return dtype == pl.Null() or (isinstance(dtype, pl.List) and is_untyped(dtype.inner))


class EmptyColumns:
    """Which columns of rows have no value at all; asked of the rows only where their type is in doubt."""

    def __init__(self, rows: pl.LazyFrame) -> None:
        self._rows = rows
        self.found: set[str] = set()

    def __call__(self, name: str) -> bool:
        column, dtype = pl.col(name), self._rows.collect_schema()[name]
        value = column.list.drop_nulls().list.len() > 0 if isinstance(dtype, pl.List) else column.is_not_null()
        if not self._rows.select(value.any()).collect(engine="streaming").item():
            self.found.add(name)
        return name in self.found
